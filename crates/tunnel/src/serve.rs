//! Answers the requests of control on an open tunnel.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::protocol::{
    CONNECTION_WINDOW, KEEP_ALIVE, KEEP_ALIVE_DEADLINE, STREAM_WINDOW, TARGET_HEADER, WRITTEN_HEADER,
    parse_machine_target,
};
use crate::{BoxBytes, BoxDuplex, LogOptions, MachineAction, Refusal, TunnelHandler};

/// Streams at a time. Too low makes users wait for each other; each costs some kilobytes.
const MAX_STREAMS: u32 = 10_000;
const COPY_BUFFER: usize = 32 << 10;

type Body = BoxBody<Bytes, io::Error>;

/// Serves a tunnel until it ends.
pub async fn serve_connection<I>(io: I, handler: Arc<dyn TunnelHandler>) -> Result<(), hyper::Error>
where
    I: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let service = hyper::service::service_fn(move |request| {
        let handler = handler.clone();
        async move {
            let answer = route(request, &*handler).await;
            Ok::<_, Infallible>(answer.unwrap_or_else(|refusal| refuse(&refusal)))
        }
    });
    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_DEADLINE)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(MAX_STREAMS)
        .serve_connection(io, service)
        .await
}

async fn route(request: Request<Incoming>, handler: &dyn TunnelHandler) -> Result<Response<Body>, Refusal> {
    let path = request.uri().path().to_owned();
    let parts: Vec<_> = path.split('/').skip(1).collect();
    match (request.method(), parts.as_slice()) {
        (&Method::POST, ["v1", "dial"]) => {
            let (uid, port) = target(&request)?;
            let connection = handler.dial_machine(&uid, port).await?;
            Ok(join(request, connection))
        }
        (&Method::POST, ["v1", "machines", uid, "console"]) => {
            let console = handler.console(checked(uid)?).await?;
            Ok(join(request, console))
        }
        (&Method::POST, ["v1", "machines", uid, "actions", name]) => {
            let unknown =
                || Refusal::new(StatusCode::NOT_FOUND, format!("this host does not know the action {name:?}"));
            handler.act(checked(uid)?, MachineAction::parse(name).ok_or_else(unknown)?).await?;
            Ok(Response::new(Full::default().map_err(|never| match never {}).boxed()))
        }
        (&Method::GET, ["v1", "services", namespace, service, "log"]) => {
            let options = LogOptions {
                follow: parameter(&request, "follow") == Some("true"),
                tail_lines: number(&request, "tailLines")?,
                since: time(&request, "sinceTime")?,
                timestamps: parameter(&request, "timestamps") == Some("true"),
            };
            let log = handler.service_log(checked(namespace)?, checked(service)?, options).await?;
            let written = log.written.len();
            let first = futures::stream::iter((written > 0).then_some(Ok(log.written)));
            let mut response = stream(match log.follow {
                Some(follow) => Box::pin(first.chain(follow)),
                None => Box::pin(first),
            });
            response.headers_mut().insert(WRITTEN_HEADER, written.into());
            Ok(response)
        }
        (&Method::GET, ["v1", "machines", uid, "serial-log"]) => {
            let tail_bytes = number(&request, "tailBytes")?.unwrap_or(u64::MAX);
            Ok(stream(handler.serial_log(checked(uid)?, tail_bytes).await?))
        }
        (&Method::GET, ["v1", "virtual-machines", uid, "previous-serial-log"]) => {
            let tail_bytes = number(&request, "tailBytes")?.unwrap_or(u64::MAX);
            Ok(stream(handler.previous_serial_log(checked(uid)?, tail_bytes).await?))
        }
        (&Method::GET, ["v1", "metrics"]) => {
            let text = handler.metrics().await?;
            Ok(Response::new(Full::new(text).map_err(|never| match never {}).boxed()))
        }
        (method, _) => Err(Refusal::new(StatusCode::NOT_FOUND, format!("this host does not serve {method} {path}"))),
    }
}

/// `machine/<uid>:<port>`.
fn target(request: &Request<Incoming>) -> Result<(String, u16), Refusal> {
    let text = request.headers().get(TARGET_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let invalid = || {
        Refusal::new(StatusCode::BAD_REQUEST, format!("{TARGET_HEADER}: expected machine/<uid>:<port>, found {text:?}"))
    };
    let (uid, port) = parse_machine_target(text).ok_or_else(invalid)?;
    Ok((checked(uid)?.to_owned(), port))
}

/// Uids and names become parts of paths.
fn checked(word: &str) -> Result<&str, Refusal> {
    let is_plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let refusal = || Refusal::new(StatusCode::BAD_REQUEST, format!("{word:?} is neither a uid nor a name"));
    if is_plain { Ok(word) } else { Err(refusal()) }
}

fn parameter<'a>(request: &'a Request<Incoming>, name: &str) -> Option<&'a str> {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn time(request: &Request<Incoming>, name: &str) -> Result<Option<jiff::Timestamp>, Refusal> {
    let Some(text) = parameter(request, name) else { return Ok(None) };
    let invalid = |_| Refusal::new(StatusCode::BAD_REQUEST, format!("{name}: expected a time, found {text:?}"));
    text.parse().map(Some).map_err(invalid)
}

fn number(request: &Request<Incoming>, name: &str) -> Result<Option<u64>, Refusal> {
    let Some(text) = parameter(request, name) else { return Ok(None) };
    let invalid = |_| Refusal::new(StatusCode::BAD_REQUEST, format!("{name}: expected a number, found {text:?}"));
    text.parse().map(Some).map_err(invalid)
}

/// Makes the bodies of the request and of the answer the two directions of `connection`. Each ends by itself; an answer that fails or
/// that is dropped before its end ends both.
fn join(request: Request<Incoming>, connection: BoxDuplex) -> Response<Body> {
    let (read, mut write) = tokio::io::split(connection);
    let upload = tokio::spawn(async move {
        let body = request.into_body().into_data_stream().map(|item| item.map_err(io::Error::other));
        let mut body = StreamReader::new(body);
        // An error means that the other side is absent; if it matters, the other direction reports it.
        if tokio::io::copy_buf(&mut body, &mut write).await.is_ok() {
            // Pass the end on, so that protocols that use it (`nc`, `scp`) work.
            let _ = write.shutdown().await;
        }
    });
    let mut upload = Some(AbortOnDrop(Some(upload)));
    let mut answer = ReaderStream::with_capacity(read, COPY_BUFFER);
    stream(Box::pin(futures::stream::poll_fn(move |context| {
        let item = ready!(answer.poll_next_unpin(context));
        if item.is_none() {
            // The far side sends no more, but may still receive: the upload ends with the request's body.
            if let Some(upload) = upload.take() {
                upload.detach();
            }
        }
        Poll::Ready(item)
    })))
}

struct AbortOnDrop(Option<tokio::task::JoinHandle<()>>);

impl AbortOnDrop {
    /// Lets the task run to its end.
    fn detach(mut self) {
        self.0 = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

fn stream(bytes: BoxBytes) -> Response<Body> {
    Response::new(streaming_body(bytes))
}

fn streaming_body(bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    // BoxBody requires Sync, which streams of files and sockets are not; a body is never read from two threads.
    BodyExt::boxed(StreamBody::new(sync_wrapper(bytes).map(|item| item.map(Frame::data))))
}

/// Makes a stream `Sync` by a lock that is never contended.
fn sync_wrapper(
    bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    let mut bytes = std::sync::Mutex::new(Box::pin(bytes));
    futures::stream::poll_fn(move |context| match bytes.get_mut() {
        Ok(bytes) => bytes.as_mut().poll_next(context),
        Err(poisoned) => poisoned.into_inner().as_mut().poll_next(context),
    })
}

fn refuse(refusal: &Refusal) -> Response<Body> {
    let text = serde_json::json!({"message": refusal.message}).to_string();
    let mut response = Response::new(Full::from(text).map_err(|never| match never {}).boxed());
    *response.status_mut() = refusal.status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
