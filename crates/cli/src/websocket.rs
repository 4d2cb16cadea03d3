//! Subresources that are streams: a WebSocket whose binary frames are the bytes.

use anyhow::{Context, bail};
use base64::Engine;
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

/// An open stream to a subresource.
pub type Stream = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Opens the stream at `path`.
pub async fn open(cloud: &Cloud, path: &str) -> anyhow::Result<Stream> {
    let request = Request::get(path)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, base64::engine::general_purpose::STANDARD.encode(nonce()))
        .body(Body::empty())?;
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

/// Copies both ways until one side ends or `escape` is typed. The end of `input` is passed on as the end of that direction
/// alone (an empty frame), but for a console, which has none.
pub async fn join(
    stream: Stream,
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
