//! One request to one replica, and its answer back.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use evroc_metrics::spans;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use crate::connect::{Connection, Pool, RequestBody};
use crate::respond::{ResponseBody, sentence};
use crate::table::{Lease, Ticket};

/// Headers that concern one connection only and are never passed on (RFC 9110, 7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "proxy-authorization",
];

/// The outcome of a request.
pub enum Outcome {
    /// The replica answered, or the gateway had to answer itself.
    Answer(Response<ResponseBody>),
    /// The replica certainly did not receive it: send it elsewhere.
    NotReceived(Box<Request<RequestBody>>, Ticket),
    /// The connection broke after sending and before an answer.
    ConnectionLost(hyper::Error, Ticket),
}

/// A request's hold on a replica and its place in the count.
pub struct Hold {
    /// The replica.
    pub lease: Lease,
    /// The place.
    pub ticket: Ticket,
}

/// Sends `request` to the leased replica, over a new connection if `fresh`. The hold ends when the answer has been passed on
/// whole.
pub async fn forward(
    pool: &Arc<Pool>,
    mut request: Request<RequestBody>,
    hold: Hold,
    fresh: bool,
    peer: SocketAddr,
) -> Outcome {
    let grpc = is_grpc(&request);
    let (original_uri, original_version) = (request.uri().clone(), request.version());
    let original_headers = request.headers().clone();
    let client_upgrade = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
    if let Err(problem) = rewrite(&mut request, grpc, peer) {
        return Outcome::Answer(sentence(StatusCode::BAD_REQUEST, &problem));
    }
    spans::write(request.headers_mut());
    let replica = &hold.lease.replica;
    let kept = if fresh { None } else { pool.kept(replica, grpc) };
    let is_new = kept.is_none();
    let restored = |mut request: Request<RequestBody>| {
        *request.uri_mut() = original_uri;
        *request.version_mut() = original_version;
        *request.headers_mut() = original_headers;
        if let Some(upgrade) = client_upgrade.clone() {
            request.extensions_mut().insert(upgrade);
        }
        Box::new(request)
    };
    let connection = match kept {
        Some(connection) => connection,
        None => match pool.connect(replica, grpc).await {
            Ok(connection) => connection,
            Err(error) => {
                if let Some(times) = hold.lease.failed() {
                    tracing::info!(replica = replica.key.name, %error, times, "replica takes no connection");
                }
                return Outcome::NotReceived(restored(request), hold.ticket);
            }
        },
    };
    let sent = match connection {
        Connection::One(mut sender) => sender.try_send_request(request).await.map(|response| (response, Some(sender))),
        Connection::Two(mut sender) => sender.try_send_request(request).await.map(|response| (response, None)),
    };
    let (mut response, connection) = match sent {
        Ok(sent) => sent,
        Err(mut failure) => {
            let returned = failure.take_message();
            // It closes connections as soon as it has accepted them: as if it did not accept any.
            if is_new && returned.is_some() {
                hold.lease.failed();
            }
            return match returned {
                Some(request) => Outcome::NotReceived(restored(request), hold.ticket),
                None => Outcome::ConnectionLost(failure.into_error(), hold.ticket),
            };
        }
    };
    if is_new {
        hold.lease.works();
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Outcome::Answer(switch(client_upgrade, response, hold));
    }
    strip(response.headers_mut());
    // Its own, not that of the other connection: an HTTP/1.0 server's clients keep theirs.
    *response.version_mut() = Version::HTTP_11;
    let back = connection.map(|connection| (pool.clone(), hold.lease.replica.uid.clone(), connection));
    Outcome::Answer(response.map(|body| Held { body, hold: Some(hold), back }.boxed()))
}

/// gRPC needs HTTP/2 on both sides; gRPC-Web does not.
fn is_grpc(request: &Request<RequestBody>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let rest = kind.strip_prefix(b"application/grpc");
    request.version() == Version::HTTP_2 && rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// A response body that holds its replica until it ends, and then gives the connection back.
struct Held {
    body: Incoming,
    hold: Option<Hold>,
    back: Option<(Arc<Pool>, String, http1::SendRequest<RequestBody>)>,
}

impl Held {
    fn finish(&mut self) {
        if let Some((pool, uid, connection)) = self.back.take() {
            pool.keep(uid, connection);
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

/// The request as the replica should see it: its own form of URI, no hop-by-hop headers, and the client's address.
fn rewrite(request: &mut Request<RequestBody>, http2: bool, peer: SocketAddr) -> Result<(), String> {
    let upgrade = request.headers().get(header::UPGRADE).filter(|_| asks_for_upgrade(request.headers())).cloned();
    // The host that the request was routed by, and no other that it may name too.
    let host = match request.uri().authority() {
        Some(host) => HeaderValue::from_str(host.as_str()).ok(),
        None => request.headers().get(header::HOST).cloned(),
    };
    let host = host.ok_or("the host cannot stand in a header")?;
    let headers = request.headers_mut();
    strip(headers);
    if let Some(upgrade) = upgrade.filter(|_| !http2) {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    append(headers, "x-forwarded-for", &peer.ip().to_canonical().to_string());
    headers.insert("x-forwarded-proto", HeaderValue::from_static("https"));
    headers.insert("x-forwarded-host", host.clone());
    let authority = String::from_utf8_lossy(host.as_bytes()).into_owned();
    if http2 {
        headers.remove(header::HOST);
    } else {
        headers.insert(header::HOST, host);
        join(headers, header::COOKIE, "; ");
    }
    let path = match request.uri().path_and_query() {
        Some(path) => path.as_str(),
        None => "/",
    };
    let uri = if http2 { format!("http://{authority}{path}") } else { path.to_owned() };
    *request.uri_mut() = uri.parse::<Uri>().map_err(|error| format!("the path cannot be passed on: {error}"))?;
    *request.version_mut() = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    Ok(())
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// Appends to the combined value of all headers of that name.
fn append(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.append(name, value);
        join(headers, HeaderName::from_static(name), ", ");
    }
}

/// Makes one header of several: HTTP/2 clients send one `Cookie` for each cookie, HTTP/1.1 knows one alone (RFC 9113, 8.2.3).
fn join(headers: &mut HeaderMap, name: HeaderName, separator: &str) {
    let all: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
    if all.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&all.join(separator.as_bytes()))
    {
        headers.insert(name, joined);
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
    // gRPC clients send `TE: trailers`, and servers check it.
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
fn switch(
    client: Option<hyper::upgrade::OnUpgrade>,
    mut response: Response<Incoming>,
    hold: Hold,
) -> Response<ResponseBody> {
    let Some(client) = client else {
        return sentence(
            StatusCode::BAD_GATEWAY,
            "the container switched protocols though the client did not ask for it",
        );
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
