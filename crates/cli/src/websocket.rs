//! Subresources that are streams: a WebSocket whose binary frames are the bytes, with [`STREAM_PROTOCOL`].

use anyhow::{Context, bail};
use base64::Engine;
use evroc_api::streams::STREAM_PROTOCOL;
use futures::{SinkExt, StreamExt};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::config::Cloud;
use crate::stdout;

/// An open stream to a subresource.
pub type Stream = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Opens the stream at `path`.
pub async fn open(cloud: &Cloud, path: &str) -> anyhow::Result<Stream> {
    let mut request = Request::get(path)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, base64::engine::general_purpose::STANDARD.encode(nonce()))
        .body(Body::empty())?;
    if stdout::CAN_END {
        let protocol = header::HeaderValue::from_static(STREAM_PROTOCOL);
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let response =
        cloud.client.send(request).await.context("the cloud does not answer; `evrocd status` says what runs")?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let code = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        match serde_json::from_slice::<kube::core::Status>(&body) {
            Ok(status) => bail!("{}", status.message),
            Err(_) => bail!("{code}: {}", String::from_utf8_lossy(&body).trim()),
        }
    }
    let upgraded = hyper::upgrade::on(response).await.context("the connection was not handed over")?;
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await)
}

/// Sixteen bytes that differ from call to call; they only have to (RFC 6455, 4.1), they keep no secret.
fn nonce() -> [u8; 16] {
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    (time ^ (u128::from(std::process::id()) << 96)).to_be_bytes()
}

/// How a joined stream ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// The user typed the escape.
    Escaped,
    /// The far side ended it, with this reason.
    Far(String),
    /// Something on the way broke, most likely because it restarts; another try may succeed.
    Broken(String),
}

/// Copies both ways until both directions have ended, the far side ends both, or `escape` is typed. The end of `input` is passed on as
/// the end of that direction alone (an empty frame), but for a console, which has none; the end of the other direction shuts `output`
/// down.
pub async fn join<S: AsyncRead + AsyncWrite + Unpin>(
    stream: WebSocketStream<S>,
    mut input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
    escape: Option<u8>,
) -> anyhow::Result<End> {
    let (mut to, mut from) = stream.split();
    let typed = async {
        let mut buffer = vec![0u8; 16 * 1024];
        loop {
            let count = input.read(&mut buffer).await.map_err(Some)?;
            let typed = &buffer[..count];
            let end = escape.and_then(|escape| typed.iter().position(|b| *b == escape));
            let bytes = end.map_or(typed, |end| &typed[..end]);
            if !bytes.is_empty() {
                to.send(Message::binary(bytes.to_vec())).await.map_err(|_| None)?;
            }
            if end.is_some() {
                // Closing is a courtesy; the user has already left.
                let _ = to.close().await;
                return Ok::<(), Option<std::io::Error>>(());
            }
            if count == 0 {
                if escape.is_none() {
                    to.send(Message::binary(Vec::new())).await.map_err(|_| None)?;
                }
                // Data that is still to come is wanted.
                std::future::pending::<()>().await;
            }
        }
    };
    let shown = async {
        loop {
            match from.next().await {
                Some(Ok(Message::Binary(bytes))) if bytes.is_empty() => output.shutdown().await?,
                Some(Ok(Message::Binary(bytes))) => {
                    output.write_all(&bytes).await?;
                    output.flush().await?;
                }
                Some(Ok(Message::Close(frame))) => {
                    let frame = frame.map(|frame| (frame.code, frame.reason.to_string()));
                    return match frame {
                        None => Ok(End::Far(String::new())),
                        Some((CloseCode::Normal, reason)) => Ok(End::Far(reason)),
                        Some((_, reason)) => Ok(End::Broken(reason)),
                    };
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Ok(End::Broken("the connection to the cloud broke: try again".into())),
            }
        }
    };
    tokio::pin!(shown);
    tokio::select! {
        left = typed => match left {
            Ok(()) => Ok(End::Escaped),
            Err(Some(error)) => Err(error).context("cannot read the input"),
            // The other direction reports why.
            Err(None) => shown.await,
        },
        ended = &mut shown => ended,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tokio_tungstenite::tungstenite::protocol::CloseFrame;

    use super::*;

    const LARGE: usize = 10 << 20;

    async fn pair() -> (WebSocketStream<DuplexStream>, WebSocketStream<DuplexStream>) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let server = WebSocketStream::from_raw_socket(theirs, Role::Server, None);
        tokio::join!(WebSocketStream::from_raw_socket(ours, Role::Client, None), server)
    }

    #[tokio::test]
    async fn a_far_side_that_ends_first_still_receives_everything() {
        let (stream, mut server) = pair().await;
        let (output, mut shown) = tokio::io::duplex(1 << 16);
        let far = async {
            server.send(Message::binary(&b"greeting"[..])).await.unwrap();
            server.send(Message::binary(Vec::new())).await.unwrap();
            let mut text = String::new();
            shown.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "greeting", "the reader sees the end before the stream ends");
            let mut received = 0;
            while let Some(Ok(Message::Binary(bytes))) = server.next().await
                && !bytes.is_empty()
            {
                received += bytes.len();
            }
            let frame = CloseFrame { code: CloseCode::Normal, reason: "done".into() };
            server.send(Message::Close(Some(frame))).await.unwrap();
            received
        };
        let input = vec![7; LARGE];
        let (end, received) = tokio::join!(join(stream, input.as_slice(), output, None), far);
        assert_eq!((end.unwrap(), received), (End::Far("done".into()), LARGE));
    }

    #[tokio::test]
    async fn lost_bytes_are_an_error() {
        let (stream, mut server) = pair().await;
        let frame = CloseFrame { code: CloseCode::Error, reason: "it was not all received".into() };
        let far = server.send(Message::Close(Some(frame)));
        let (end, _) = tokio::join!(join(stream, &b"x"[..], tokio::io::sink(), None), far);
        assert_eq!(end.unwrap(), End::Broken("it was not all received".into()));
    }
}
