//! Bodies of requests and responses.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request, from the network or from within the process.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;

/// The body of a response: complete, or a stream.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// Returns a complete body.
pub fn full(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Returns an empty body.
pub fn empty() -> ResponseBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Returns a body that sends each piece as soon as it is available.
pub fn stream<S>(pieces: S) -> ResponseBody
where
    S: Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
{
    Pieces(Box::pin(pieces)).boxed_unsync()
}

/// The body, which ends after some time as if the rest had been sent.
pub fn until(body: ResponseBody, rest: Duration) -> ResponseBody {
    let pieces = body.into_data_stream();
    Pieces(Box::pin(pieces.take_until(Box::pin(tokio::time::sleep(rest))))).boxed_unsync()
}

/// The body, which fails when `end` comes, if that is before its own end.
pub fn unless(body: ResponseBody, end: impl Future<Output = ()> + Send + 'static, why: &'static str) -> ResponseBody {
    let own_end = futures::stream::once(std::future::ready(None));
    let pieces = body.into_data_stream().map(Some).chain(own_end);
    let failure = futures::stream::once(async move {
        end.await;
        Some(Err(BoxError::from(why)))
    });
    let merged = futures::stream::select(pieces, failure).take_while(|piece| std::future::ready(piece.is_some()));
    Pieces(Box::pin(merged.filter_map(std::future::ready))).boxed_unsync()
}

type PieceStream = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

struct Pieces(PieceStream);

impl Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.as_mut().poll_next(cx).map(|piece| piece.map(|bytes| bytes.map(Frame::data)))
    }
}
