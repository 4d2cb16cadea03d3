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

/// Copies both ways until one side ends or `escape` is typed. Says whether the far side ended.
pub async fn join(
    stream: Stream,
    mut input: impl AsyncRead + Unpin,
    mut output: impl AsyncWrite + Unpin,
    escape: Option<u8>,
) -> anyhow::Result<bool> {
    let (mut to, mut from) = stream.split();
    let mut buffer = vec![0u8; 16 * 1024];
    let mut typing = true;
    loop {
        tokio::select! {
            read = input.read(&mut buffer), if typing => {
                let typed = &buffer[..read?];
                let end = escape.and_then(|escape| typed.iter().position(|b| *b == escape));
                let typed = end.map_or(typed, |end| &typed[..end]);
                if !typed.is_empty() {
                    to.send(Message::binary(typed.to_vec())).await?;
                }
                if end.is_some() {
                    // Closing is a courtesy; the user has already left.
                    let _ = to.close().await;
                    return Ok(false);
                }
                if typed.is_empty() {
                    typing = false;
                    if escape.is_none() {
                        to.send(Message::Close(None)).await?;
                    }
                }
            }
            message = from.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    output.write_all(&bytes).await?;
                    output.flush().await?;
                }
                Some(Ok(Message::Text(text))) => output.write_all(text.as_bytes()).await?,
                Some(Ok(Message::Close(frame))) => {
                    if let Some(frame) = frame.filter(|f| !f.reason.is_empty()) {
                        bail!("{}", frame.reason);
                    }
                    return Ok(true);
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error).context("the stream broke"),
                None => return Ok(true),
            },
        }
    }
}
