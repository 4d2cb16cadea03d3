//! A WebSocket whose binary frames are bytes of a stream.
//!
//! Towards the guest an empty binary frame ends the direction, as a WebSocket itself has no half-closed state (`nc` and `scp`
//! want it). Towards the user a close frame ends it: code 1000 if the guest ended it, another if it broke; the reason says why
//! in one sentence.

use std::time::Duration;

use evroc_apiserver::ApiError;
use evroc_apiserver::body::{self, RequestBody, ResponseBody};
use futures::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_util::sync::CancellationToken;

/// A silent connection is asked for a sign of life this often, and given up when none came for three times as long.
const PING: Duration = Duration::from_secs(30);
const SILENCE: Duration = Duration::from_secs(90);
/// How long the user's program may take to take note of the end.
const FAREWELL: Duration = Duration::from_secs(5);
/// The largest message of a user's program.
const MAX_MESSAGE: usize = 1 << 20;
/// The largest piece that is read from the guest.
const BUFFER: usize = 32 << 10;
/// The largest reason of a close frame (RFC 6455, 5.5.1).
const MAX_REASON: usize = 123;

/// Refuses a request that is not for a WebSocket.
pub fn check(request: &Request<RequestBody>) -> Result<(), ApiError> {
    let has = |name, wanted: &str| {
        let values = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
    };
    let is_websocket = has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13")
        && request.headers().contains_key(header::SEC_WEBSOCKET_KEY)
        && request.extensions().get::<hyper::upgrade::OnUpgrade>().is_some();
    if is_websocket {
        return Ok(());
    }
    let message = "this subresource is a WebSocket: expected HTTP/1.1 with Upgrade: websocket and version 13; \
                   `evroc compute vm console` and `ssh` speak it";
    Err(ApiError::new(StatusCode::UPGRADE_REQUIRED, "UpgradeRequired", message))
}

/// Answers a request that was checked, and joins the WebSocket with `far` in the background. `end` is what the user is told
/// when `far` ends.
pub fn accept(
    request: Request<RequestBody>,
    far: impl AsyncRead + AsyncWrite + Send + 'static,
    end: String,
    stop: CancellationToken,
) -> Response<ResponseBody> {
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accepted = key.unwrap_or_default();
    for (name, value) in [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, accepted.as_str()),
    ] {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    tokio::spawn(async move {
        match hyper::upgrade::on(request).await {
            Ok(upgraded) => {
                let config =
                    WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
                let io = TokioIo::new(upgraded);
                let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
                join(socket, far, end, stop).await;
            }
            Err(error) => tracing::debug!(%error, "a user left before the stream began"),
        }
    });
    response
}

/// Copies both ways until one side ends.
async fn join<S>(socket: WebSocketStream<S>, far: impl AsyncRead + AsyncWrite, end: String, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut to_user, mut from_user) = socket.split();
    let (mut read, mut write) = tokio::io::split(far);
    let upward = async {
        while let Ok(Some(Ok(message))) = tokio::time::timeout(SILENCE, from_user.next()).await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => return,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            // An end of this direction that the guest made shows in the other as well.
            let _ = if bytes.is_empty() { write.shutdown().await } else { write.write_all(&bytes).await };
        }
    };
    tokio::pin!(upward);
    let downward = async {
        let mut pings = tokio::time::interval(PING);
        let mut buffer = vec![0; BUFFER];
        loop {
            let message = tokio::select! {
                count = read.read(&mut buffer) => match count {
                    Ok(0) => return (CloseCode::Normal, end),
                    Ok(count) => Message::binary(buffer[..count].to_vec()),
                    Err(error) => {
                        tracing::debug!(%error, "a stream to a host broke");
                        return (CloseCode::Again, "the connection to the host broke, it may be restarting: try again".into());
                    }
                },
                _ = pings.tick() => Message::Ping(Bytes::new()),
            };
            if to_user.send(message).await.is_err() {
                return (CloseCode::Away, String::new());
            }
        }
    };
    let (code, reason) = tokio::select! {
        ended = downward => ended,
        () = &mut upward => (CloseCode::Normal, String::new()),
        () = stop.cancelled() => (CloseCode::Restart, "the cloud is restarting: try again".into()),
    };
    let frame = CloseFrame { code, reason: shortened(&reason).into() };
    let farewell = async {
        if to_user.send(Message::Close(Some(frame))).await.is_ok() && !reason.is_empty() {
            upward.await;
        }
    };
    // A user who has disconnected cannot be notified.
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

fn shortened(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    type Client = WebSocketStream<tokio::io::DuplexStream>;

    /// A user's end, the guest's end, and the signal that stops control.
    async fn pair() -> (Client, tokio::io::DuplexStream, CancellationToken) {
        let (user, server) = tokio::io::duplex(1 << 16);
        let (far, guest) = tokio::io::duplex(1 << 16);
        let stop = CancellationToken::new();
        let token = stop.clone();
        tokio::spawn(async move {
            let socket = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
            join(socket, far, "the guest hung up".into(), token).await;
        });
        (WebSocketStream::from_raw_socket(user, Role::Client, None).await, guest, stop)
    }

    async fn next(user: &mut Client) -> Message {
        loop {
            match user.next().await.unwrap().unwrap() {
                Message::Ping(_) => {}
                message => return message,
            }
        }
    }

    async fn closed(user: &mut Client) -> (CloseCode, String) {
        match next(user).await {
            Message::Close(Some(frame)) => (frame.code, frame.reason.to_string()),
            other => panic!("expected the end, found {other:?}"),
        }
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_guest_can_hang_up() {
        let (mut user, mut guest, _stop) = pair().await;
        user.send(Message::binary(&b"hello"[..])).await.unwrap();
        let mut buffer = [0; 5];
        guest.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"hello");
        guest.write_all(b"hi").await.unwrap();
        assert_eq!(next(&mut user).await, Message::binary(&b"hi"[..]));
        drop(guest);
        assert_eq!(closed(&mut user).await, (CloseCode::Normal, "the guest hung up".into()));
    }

    #[tokio::test]
    async fn the_user_can_end_one_direction_alone() {
        let (mut user, mut guest, _stop) = pair().await;
        user.send(Message::binary(&b"question"[..])).await.unwrap();
        user.send(Message::binary(Bytes::new())).await.unwrap();
        let mut asked = String::new();
        guest.read_to_string(&mut asked).await.unwrap();
        assert_eq!(asked, "question");
        guest.write_all(b"answer").await.unwrap();
        assert_eq!(next(&mut user).await, Message::binary(&b"answer"[..]));
    }

    #[tokio::test]
    async fn a_user_who_leaves_ends_both() {
        let (mut user, mut guest, _stop) = pair().await;
        user.close(None).await.unwrap();
        assert_eq!(guest.read(&mut [0; 5]).await.unwrap(), 0);
        let (user, mut guest, _stop) = pair().await;
        drop(user);
        assert_eq!(guest.read(&mut [0; 5]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_restart_is_reported() {
        let (mut user, _guest, stop) = pair().await;
        stop.cancel();
        assert_eq!(closed(&mut user).await.0, CloseCode::Restart);
    }

    #[test]
    fn reasons_fit_into_a_frame() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"ä".repeat(100)).len(), 122);
    }
}
