//! A connection that ends with the credential of the caller who took it over: a console or a tunnel is asked for once and then used for
//! hours.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use crate::http::authn::{Ending, Peer};

/// A stream that fails once the time is over that [`Peer::end_at`] says; before that is called it costs a comparison.
pub(super) struct Expiring<S> {
    stream: S,
    peer: Peer,
    end: Option<Pin<Box<Sleep>>>,
    ending: Option<Ending>,
}

impl<S> Expiring<S> {
    pub(super) fn new(stream: S, peer: Peer) -> Self {
        Expiring { stream, peer, end: None, ending: None }
    }

    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.end.is_none()
            && let Some(end) = self.peer.end()
        {
            let rest = Duration::try_from(end.duration_since(Timestamp::now())).unwrap_or_default();
            self.end = Some(Box::pin(sleep(rest)));
        }
        if let Some(ending) = self.peer.take_ending() {
            self.ending = Some(ending);
        }
        if let Some(ending) = &mut self.ending
            && ending.0.as_mut().poll(cx).is_ready()
        {
            let why = "the credential of the caller was revoked";
            return Poll::Ready(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        match &mut self.end {
            None => Poll::Pending,
            Some(end) => {
                ready!(end.as_mut().poll(cx));
                Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the credential of the caller has ended"))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Expiring<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(error) = self.poll_expired(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Expiring<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_expired(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(error) = self.poll_expired(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_stream_ends_with_the_credential() {
        let (one, mut other) = tokio::io::duplex(64);
        let peer = Peer::default();
        let mut stream = Expiring::new(one, peer.clone());
        let mut byte = [0];
        other.write_all(b"ab").await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();
        peer.end_at(Timestamp::now() + jiff::SignedDuration::from_secs(2));
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(stream.read(&mut byte).await.unwrap_err().kind(), io::ErrorKind::TimedOut, "nothing was written");
        assert!(stream.write_all(b"c").await.is_err());
    }

    #[tokio::test]
    async fn a_stream_ends_when_the_credential_is_revoked() {
        let (one, mut other) = tokio::io::duplex(64);
        let peer = Peer::default();
        let mut stream = Expiring::new(one, peer.clone());
        let (revoke, revoked) = tokio::sync::oneshot::channel::<()>();
        peer.end_with(Ending(Box::pin(async move {
            let _ = revoked.await;
        })));
        let mut byte = [0];
        other.write_all(b"a").await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();
        revoke.send(()).unwrap();
        assert_eq!(stream.read(&mut byte).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
