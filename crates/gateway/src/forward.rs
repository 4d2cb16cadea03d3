//! One request to one replica, and its answer back.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_util::rt::TokioIo;

use crate::connect::{Connection, Pool, RequestBody};
use crate::respond::{ResponseBody, sentence};
use crate::table::{Lease, Ticket};

/// Headers that concern one connection only and are never passed on (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 8] =
    ["connection", "proxy-connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-authenticate"];

/// What became of a request.
pub enum Outcome {
    /// The replica answered, or the gateway had to answer itself.
    Answer(Response<ResponseBody>),
    /// The replica certainly did not receive it: send it elsewhere.
    NotReceived(Box<Request<RequestBody>>),
    /// The connection broke after sending and before an answer.
    Lost(hyper::Error),
}

/// Sends `request` to the leased replica. Lease and ticket end when the answer has been passed on whole.
pub async fn forward(pool: &Arc<Pool>, mut request: Request<RequestBody>, lease: Lease, ticket: Option<Ticket>, peer: SocketAddr) -> Outcome {
    let grpc = request.version() == Version::HTTP_2
        && request.headers().get(header::CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    let connection = match pool.take(&lease.replica, grpc).await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::info!(replica = lease.replica.key.name, %error, "replica takes no connection");
            lease.unusable();
            return Outcome::NotReceived(Box::new(request));
        }
    };
    let client_upgrade = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
    let original_uri = request.uri().clone();
    let original_headers = request.headers().clone();
    if let Err(problem) = rewrite(&mut request, grpc, peer) {
        return Outcome::Answer(sentence(StatusCode::BAD_REQUEST, &problem));
    }
    let hold = Hold { _lease: lease, _ticket: ticket };
    let uid = hold._lease.replica.uid.clone();
    let sent = match connection {
        Connection::One(mut sender) => sender.try_send_request(request).await.map(|response| (response, Some(Connection::One(sender)))),
        Connection::Two(mut sender) => sender.try_send_request(request).await.map(|response| (response, None)),
    };
    let (mut response, connection) = match sent {
        Ok(sent) => sent,
        Err(mut failure) => {
            return match failure.take_message() {
                Some(mut request) => {
                    *request.uri_mut() = original_uri;
                    *request.headers_mut() = original_headers;
                    if let Some(upgrade) = client_upgrade {
                        request.extensions_mut().insert(upgrade);
                    }
                    Outcome::NotReceived(Box::new(request))
                }
                None => Outcome::Lost(failure.into_error()),
            };
        }
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Outcome::Answer(switch(client_upgrade, response, hold));
    }
    strip(response.headers_mut());
    let back = connection.map(|connection| (pool.clone(), uid, connection));
    Outcome::Answer(response.map(|body| Held { body, hold: Some(hold), back }.boxed()))
}

/// Lease and ticket of one request.
struct Hold {
    _lease: Lease,
    _ticket: Option<Ticket>,
}

/// A response body that holds its replica until it ends, and then gives the connection back.
struct Held {
    body: Incoming,
    hold: Option<Hold>,
    back: Option<(Arc<Pool>, String, Connection)>,
}

impl Held {
    fn finish(&mut self) {
        if let Some((pool, uid, connection)) = self.back.take() {
            pool.keep(&uid, connection);
        }
        self.hold = None;
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.finish();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.finish();
        }
    }
}

/// The request as the replica should see it: its own form of URI, no hop-by-hop headers, and who asked.
fn rewrite(request: &mut Request<RequestBody>, http2: bool, peer: SocketAddr) -> Result<(), String> {
    let upgrade = request.headers().get(header::UPGRADE).cloned();
    let host = request.uri().authority().map(|a| a.as_str().to_owned());
    strip(request.headers_mut());
    if let Some(upgrade) = upgrade.filter(|_| !http2) {
        request.headers_mut().insert(header::UPGRADE, upgrade);
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if let Some(host) = host.filter(|_| !request.headers().contains_key(header::HOST)) {
        let host = HeaderValue::from_str(&host).map_err(|_| format!("the host {host} cannot stand in a header"))?;
        request.headers_mut().insert(header::HOST, host);
    }
    let headers = request.headers_mut();
    append(headers, "x-forwarded-for", &peer.ip().to_string());
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.insert("x-forwarded-host", host);
    }
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let uri = if http2 { format!("http://replica{path}") } else { path };
    *request.uri_mut() = uri.parse::<Uri>().map_err(|error| format!("the path cannot be passed on: {error}"))?;
    *request.version_mut() = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    Ok(())
}

fn append(headers: &mut HeaderMap, name: &'static str, value: &str) {
    let before = headers.get(name).and_then(|v| v.to_str().ok());
    let all = before.map_or_else(|| value.to_owned(), |before| format!("{before}, {value}"));
    if let Ok(all) = HeaderValue::from_str(&all) {
        headers.insert(name, all);
    }
}

/// Removes what concerns one connection only: the known headers and those that `Connection` names.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    // `TE: trailers` is what gRPC clients say and its servers look for.
    let trailers = headers.get(header::TE).is_some_and(|te| te == "trailers");
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Joins both sides once they have left HTTP, for example for a WebSocket.
fn switch(client: Option<hyper::upgrade::OnUpgrade>, mut response: Response<Incoming>, hold: Hold) -> Response<ResponseBody> {
    let Some(client) = client else {
        return sentence(StatusCode::BAD_GATEWAY, "the container switched protocols though the client did not ask for it");
    };
    let server = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        let joined: io::Result<()> = async {
            let (client, server) = tokio::try_join!(client, server).map_err(io::Error::other)?;
            tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(server)).await?;
            Ok(())
        }
        .await;
        drop(hold);
        if let Err(error) = joined {
            tracing::debug!(%error, "upgraded connection ended");
        }
    });
    response.map(|_| Empty::new().map_err(|never| match never {}).boxed())
}
