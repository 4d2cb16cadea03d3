//! Reads the name in a TLS client's greeting, without ending its TLS: the greeting can be read again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// The longest greeting that is read. Real ones with post-quantum keys take about 2 KB.
const LONGEST_GREETING: usize = 32 * 1024;

/// How a connection begins.
pub enum Greeting<S> {
    /// With TLS: the server name, and the stream as if nothing had been read.
    Tls(Option<String>, Rewound<S>),
    /// With anything else: the bytes to send before closing.
    Other(S, Vec<u8>),
}

/// The response to a client that speaks plain HTTP.
const PLAIN_HTTP: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
    this port speaks HTTPS: expected https:// in the address, found http://\n";

/// Reads how a connection begins.
pub async fn greeting<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<Greeting<S>> {
    let mut read = BytesMut::with_capacity(4096);
    let mut acceptor = Acceptor::default();
    loop {
        let before = read.len();
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended within the TLS greeting"));
        }
        if read[0].is_ascii_uppercase() {
            return Ok(Greeting::Other(stream, PLAIN_HTTP.into()));
        }
        let mut fresh = &read[before..];
        while !fresh.is_empty() {
            acceptor.read_tls(&mut fresh)?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                return Ok(Greeting::Tls(name, Rewound { stream, read }));
            }
            Ok(None) if read.len() < LONGEST_GREETING => {}
            Ok(None) => return Err(io::Error::new(io::ErrorKind::InvalidData, "the TLS greeting is too long")),
            Err((_, mut alert)) => {
                let mut text = vec![];
                alert.write_all(&mut text)?;
                return Ok(Greeting::Other(stream, text));
            }
        }
    }
}

/// How HTTP/2 begins (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until the HTTP version is known, so that the server that detects it does not wait.
pub async fn first_words<S: AsyncRead + Unpin>(mut stream: S) -> io::Result<Rewound<S>> {
    let mut read = BytesMut::with_capacity(4096);
    while read.len() < PREFACE.len() && PREFACE.starts_with(&read) {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before a request"));
        }
    }
    Ok(Rewound { stream, read })
}

/// A stream whose first bytes, already read, are read again.
pub struct Rewound<S> {
    stream: S,
    read: BytesMut,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let count = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..count]);
        self.read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
