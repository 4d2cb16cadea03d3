//! A WebSocket whose binary frames are bytes of a stream.
//!
//! A WebSocket itself has no half-closed state, which `nc`, `scp` and others want. An empty binary frame ends the direction towards the
//! guest; with [`STREAM_PROTOCOL`] one ends the direction towards the user as well, and the close frame comes when both have ended.
//! Without it the close frame ends the direction towards the user: code 1000 if the guest ended it, another if it broke; the reason says
//! why in one sentence.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use evroc_api::streams::STREAM_PROTOCOL;
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
use tokio_tungstenite::tungstenite::{self, Bytes, Message};
use tokio_util::sync::CancellationToken;

use super::places::Place;

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

/// Whether a header lists a word.
fn has(request: &Request<RequestBody>, name: header::HeaderName, wanted: &str) -> bool {
    let values = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case(wanted))
}

/// Refuses a request that is not for a WebSocket.
pub(super) fn check(request: &Request<RequestBody>) -> Result<(), ApiError> {
    let is_websocket = has(request, header::UPGRADE, "websocket")
        && has(request, header::SEC_WEBSOCKET_VERSION, "13")
        && request.headers().contains_key(header::SEC_WEBSOCKET_KEY)
        && request.extensions().get::<hyper::upgrade::OnUpgrade>().is_some();
    if is_websocket {
        return Ok(());
    }
    let message = "this subresource is a WebSocket: expected HTTP/1.1 with Upgrade: websocket and version 13; \
                   `evroc compute vm console` and `ssh` speak it";
    Err(ApiError::new(StatusCode::UPGRADE_REQUIRED, "UpgradeRequired", message))
}

/// How a stream ends from the guest's side.
pub(super) struct End {
    /// One sentence for the user.
    pub reason: String,
    /// Whether its directions end one by one; a console ends as a whole.
    pub has_directions: bool,
}

/// Answers a request that was checked, and joins the WebSocket with `far` in the background, which holds `place` until it ends.
pub(super) fn accept(
    request: Request<RequestBody>,
    far: impl AsyncRead + AsyncWrite + Send + 'static,
    mut end: End,
    stop: CancellationToken,
    place: Place,
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
    if has(&request, header::SEC_WEBSOCKET_PROTOCOL, STREAM_PROTOCOL) {
        let value = header::HeaderValue::from_static(STREAM_PROTOCOL);
        response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    } else {
        end.has_directions = false;
    }
    tokio::spawn(async move {
        let _place = place;
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

/// How the user left.
enum Left {
    /// With a close frame, after everything that was to be sent.
    Closed,
    /// Without.
    Broken,
}

/// The bytes received from the user so far.
#[derive(Default)]
struct Upward {
    /// The user ended the direction, or the guest takes nothing more.
    over: CancellationToken,
    /// The guest did not take everything.
    is_lost: AtomicBool,
    /// The frames that the guest took.
    taken: AtomicU64,
}

impl Upward {
    /// Copies towards the guest until the user leaves.
    async fn copy<R>(&self, from_user: &mut R, write: &mut (impl AsyncWrite + Unpin)) -> Left
    where
        R: futures::Stream<Item = Result<Message, tungstenite::Error>> + Unpin,
    {
        while let Ok(Some(Ok(message))) = tokio::time::timeout(SILENCE, from_user.next()).await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => {
                    // An end of this direction that the guest made shows in the other as well.
                    let _ = write.shutdown().await;
                    return Left::Closed;
                }
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            if bytes.is_empty() {
                let _ = write.shutdown().await;
                self.over.cancel();
            } else if !self.is_lost.load(Ordering::Relaxed) && write.write_all(&bytes).await.is_ok() {
                self.taken.fetch_add(1, Ordering::Relaxed);
            } else {
                self.is_lost.store(true, Ordering::Relaxed);
                self.over.cancel();
            }
        }
        Left::Broken
    }
}

/// Copies towards the user until the guest has ended its direction and, where directions end one by one, the user the other.
async fn downward<W>(
    to_user: &mut W,
    read: &mut (impl AsyncRead + Unpin),
    end: &End,
    upward: &Upward,
) -> (CloseCode, String)
where
    W: futures::Sink<Message> + Unpin,
{
    let mut pings = tokio::time::interval(PING);
    let mut buffer = vec![0; BUFFER];
    let mut is_ended = false;
    loop {
        let message = tokio::select! {
            count = read.read(&mut buffer), if !is_ended => match count {
                Ok(0) if end.has_directions && !upward.over.is_cancelled() => {
                    is_ended = true;
                    Message::Binary(Bytes::new())
                }
                Ok(0) => break,
                Ok(count) => Message::binary(buffer[..count].to_vec()),
                Err(error) => {
                    tracing::debug!(%error, "a stream to a host broke");
                    return (CloseCode::Again, "the connection to the host broke, it may be restarting: try again".into());
                }
            },
            () = upward.over.cancelled(), if is_ended => break,
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        if to_user.send(message).await.is_err() {
            return (CloseCode::Away, String::new());
        }
    }
    match upward.is_lost.load(Ordering::Relaxed) {
        true => (CloseCode::Error, format!("{} before it had received everything", end.reason)),
        false => (CloseCode::Normal, end.reason.clone()),
    }
}

/// Copies both ways until both directions have ended or the user leaves.
async fn join<S>(socket: WebSocketStream<S>, far: impl AsyncRead + AsyncWrite, end: End, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut to_user, mut from_user) = socket.split();
    let (mut read, mut write) = tokio::io::split(far);
    let state = Upward::default();
    let mut upward = std::pin::pin!(state.copy(&mut from_user, &mut write));
    let ended = tokio::select! {
        ended = downward(&mut to_user, &mut read, &end, &state) => Ok(ended),
        left = &mut upward => Err(left),
        () = stop.cancelled() => Ok((CloseCode::Restart, "the cloud is restarting: try again".into())),
    };
    match ended {
        Err(Left::Broken) => {}
        Err(Left::Closed) => {
            // What was sent last is still on its way to the guest; dropping the stream now would lose it.
            let mut nowhere = tokio::io::sink();
            let rest = tokio::io::copy(&mut read, &mut nowhere);
            let (_, _) = tokio::join!(tokio::time::timeout(FAREWELL, rest), to_user.close());
        }
        Ok((code, reason)) => {
            let frame = CloseFrame { code, reason: shortened(&reason).into() };
            // A user who has disconnected cannot be notified.
            let _ = tokio::time::timeout(FAREWELL, to_user.send(Message::Close(Some(frame)))).await;
            // What the user sent before it knew of the end still arrives, for as long as the guest takes it.
            let taken = || state.taken.load(Ordering::Relaxed);
            let mut before = taken();
            while tokio::time::timeout(FAREWELL, &mut upward).await.is_err() && taken() != before {
                before = taken();
            }
        }
    }
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
    async fn pair(has_directions: bool) -> (Client, tokio::io::DuplexStream, CancellationToken) {
        let (user, server) = tokio::io::duplex(1 << 16);
        let (far, guest) = tokio::io::duplex(1 << 16);
        let stop = CancellationToken::new();
        let token = stop.clone();
        tokio::spawn(async move {
            let socket = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
            let end = End { reason: "the guest hung up".into(), has_directions };
            join(socket, far, end, token).await;
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
        let (mut user, mut guest, _stop) = pair(false).await;
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
        let (mut user, mut guest, _stop) = pair(false).await;
        user.send(Message::binary(&b"question"[..])).await.unwrap();
        user.send(Message::binary(Bytes::new())).await.unwrap();
        let mut stream_request = String::new();
        guest.read_to_string(&mut stream_request).await.unwrap();
        assert_eq!(stream_request, "question");
        guest.write_all(b"answer").await.unwrap();
        assert_eq!(next(&mut user).await, Message::binary(&b"answer"[..]));
    }

    const LARGE: usize = 10 << 20;

    #[tokio::test]
    async fn a_guest_that_ends_first_still_receives_everything() {
        let (mut user, mut guest, _stop) = pair(true).await;
        guest.write_all(b"greeting").await.unwrap();
        guest.shutdown().await.unwrap();
        assert_eq!(next(&mut user).await, Message::binary(&b"greeting"[..]));
        assert_eq!(next(&mut user).await, Message::binary(Bytes::new()), "the end of this direction alone");
        let sending = async {
            for piece in vec![7; LARGE].chunks(BUFFER) {
                user.send(Message::binary(piece.to_vec())).await.unwrap();
            }
            user.send(Message::binary(Bytes::new())).await.unwrap();
            closed(&mut user).await
        };
        let mut received = Vec::new();
        let (end, _) = tokio::join!(sending, guest.read_to_end(&mut received));
        assert_eq!((received.len(), end), (LARGE, (CloseCode::Normal, "the guest hung up".into())));
    }

    #[tokio::test]
    async fn a_user_who_ends_first_still_receives_everything() {
        for has_directions in [true, false] {
            let (mut user, mut guest, _stop) = pair(has_directions).await;
            user.send(Message::binary(Bytes::new())).await.unwrap();
            let sending = async {
                guest.write_all(&vec![7; LARGE]).await.unwrap();
                guest.shutdown().await.unwrap();
            };
            let receiving = async {
                let mut count = 0;
                loop {
                    match next(&mut user).await {
                        Message::Binary(bytes) => count += bytes.len(),
                        Message::Close(Some(frame)) => return (count, frame.code),
                        other => panic!("{other:?}"),
                    }
                }
            };
            let (_, received) = tokio::join!(sending, receiving);
            assert_eq!(received, (LARGE, CloseCode::Normal), "{has_directions}");
        }
    }

    #[tokio::test]
    async fn a_plain_client_loses_nothing_that_it_sent_before_it_knew_of_the_end() {
        let (mut user, mut guest, _stop) = pair(false).await;
        for _ in 0..8 {
            user.send(Message::binary(vec![7; 4096])).await.unwrap();
        }
        guest.shutdown().await.unwrap();
        let mut received = Vec::new();
        let (end, _) = tokio::join!(closed(&mut user), async {
            // The answer to the close frame is sent by the client's library.
            guest.read_exact(&mut [0; 1]).await.unwrap();
        });
        assert_eq!(end.0, CloseCode::Normal);
        let (_, _) = tokio::join!(user.next(), guest.read_to_end(&mut received));
        assert_eq!(received.len(), 8 * 4096 - 1);
    }

    #[tokio::test]
    async fn a_guest_that_does_not_take_everything_is_an_error() {
        let (mut user, guest, _stop) = pair(true).await;
        drop(guest);
        assert_eq!(next(&mut user).await, Message::binary(Bytes::new()));
        user.send(Message::binary(&b"lost"[..])).await.unwrap();
        let (code, reason) = closed(&mut user).await;
        assert_eq!((code, reason.as_str()), (CloseCode::Error, "the guest hung up before it had received everything"));
    }

    #[tokio::test]
    async fn a_user_who_leaves_ends_both() {
        let (mut user, mut guest, _stop) = pair(false).await;
        user.close(None).await.unwrap();
        assert_eq!(guest.read(&mut [0; 5]).await.unwrap(), 0);
        let (user, mut guest, _stop) = pair(false).await;
        drop(user);
        assert_eq!(guest.read(&mut [0; 5]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_restart_is_reported() {
        let (mut user, _guest, stop) = pair(false).await;
        stop.cancel();
        assert_eq!(closed(&mut user).await.0, CloseCode::Restart);
    }

    #[test]
    fn reasons_fit_into_a_frame() {
        assert_eq!(shortened("short"), "short");
        assert_eq!(shortened(&"ä".repeat(100)).len(), 122);
    }
}
