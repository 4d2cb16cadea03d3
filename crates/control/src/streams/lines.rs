//! Lines of a log that stands on several hosts: never mixed within a line, and in the order of time as far as they were written before
//! they were asked for. What is written later is passed on as it comes.
//!
//! Every line of a host begins with its time; a line that does not has the time of the one before.

use std::collections::VecDeque;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use evroc_apiserver::body::BoxError;
use futures::stream::BoxStream;
use futures::{Sink, SinkExt, Stream, StreamExt};
use jiff::Timestamp;

/// A host that is silent in the middle of what it has already written is given up after this time. Lower would give up hosts that are
/// busy, higher lets a dead one delay the lines of all others.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// Lines are passed on in pieces of about so many bytes.
const BATCH: usize = 16 << 10;
/// The most that is kept in memory to find the last lines, in bytes.
const LARGEST_TAIL: usize = 16 << 20;

/// Which lines are wanted, and in which form.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// Only so many from the end of what was written before; all if absent.
    pub tail: Option<u64>,
    /// Whether lines begin with their time.
    pub timestamps: bool,
}

/// A host stopped in the middle of its log.
#[derive(Debug, thiserror::Error)]
#[error("a host did not go on with its log")]
struct Silent;

/// The output of one host.
pub(super) struct HostLines {
    body: BoxStream<'static, Result<Bytes, BoxError>>,
    buffer: BytesMut,
    /// The bytes of `buffer` that hold no end of a line.
    searched: usize,
    /// The bytes that are still to come of what had been written before.
    written: u64,
    is_ended: bool,
    last: Timestamp,
}

/// One line with its end.
struct Line {
    time: Timestamp,
    text: Bytes,
}

impl HostLines {
    /// Lines from a body of which the first `written` bytes are in the order of time.
    pub(super) fn new(written: u64, body: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Self {
        let (buffer, last) = (BytesMut::new(), Timestamp::MIN);
        Self { body: body.boxed(), buffer, searched: 0, written, is_ended: false, last }
    }

    /// Waits for more of the body; false at its end.
    async fn more(&mut self) -> Result<bool, BoxError> {
        match self.body.next().await {
            Some(Ok(bytes)) => {
                self.buffer.extend_from_slice(&bytes);
                Ok(true)
            }
            Some(Err(error)) => Err(error),
            None => {
                self.is_ended = true;
                if !self.buffer.is_empty() && self.buffer.last() != Some(&b'\n') {
                    self.buffer.extend_from_slice(b"\n");
                }
                Ok(!self.buffer.is_empty())
            }
        }
    }

    /// The next of the lines that had been written before.
    async fn written(&mut self) -> Result<Option<Line>, BoxError> {
        while self.written > 0 {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let text = self.buffer.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                self.written = self.written.saturating_sub(text.len() as u64);
                let (time, _) = parts(&text);
                self.last = time.unwrap_or(self.last);
                return Ok(Some(Line { time: self.last, text }));
            }
            self.searched = self.buffer.len();
            if self.is_ended || !self.more().await? {
                break;
            }
        }
        Ok(None)
    }

    /// The whole lines that come next, as many as there are.
    async fn next(&mut self) -> Result<Option<Bytes>, BoxError> {
        loop {
            if let Some(end) = self.buffer.iter().rposition(|byte| *byte == b'\n') {
                self.searched = 0;
                return Ok(Some(self.buffer.split_to(end + 1).freeze()));
            }
            if self.is_ended || !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// All further lines, in the form that is wanted.
    pub(super) fn into_stream(self, wanted: Wanted) -> BoxStream<'static, Result<Bytes, BoxError>> {
        let lines = futures::stream::try_unfold(self, |mut host| async move {
            Ok::<_, BoxError>(host.next().await?.map(|lines| (lines, host)))
        });
        lines.map(move |lines| lines.map(|lines| shown(&lines, wanted))).boxed()
    }
}

/// The time that a line begins with, and the length of what comes before its text.
fn parts(line: &[u8]) -> (Option<Timestamp>, usize) {
    let space = line.iter().position(|byte| *byte == b' ');
    let time = space.and_then(|space| std::str::from_utf8(&line[..space]).ok()?.parse().ok());
    match (time, space) {
        (Some(time), Some(space)) => (Some(time), space + 1),
        _ => (None, 0),
    }
}

/// Lines in the form that is wanted.
fn shown(lines: &Bytes, wanted: Wanted) -> Bytes {
    if wanted.timestamps {
        return lines.clone();
    }
    let mut text = Vec::with_capacity(lines.len());
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        text.extend_from_slice(line.get(parts(line).1..).unwrap_or_default());
    }
    text.into()
}

/// Writes what had been written before on all hosts, in the order of time. If a host breaks off or is silent for `silence`, the lines of
/// the others still come.
///
/// # Errors
/// The error of the host that broke off, after the lines of the others.
pub(super) async fn write_merged(
    hosts: &mut [HostLines],
    wanted: Wanted,
    silence: Duration,
    mut write: Pin<&mut (impl Sink<Bytes> + Send)>,
) -> Result<(), BoxError> {
    let mut merge = Merge { heads: hosts.iter().map(|_| None).collect(), hosts, silence, broken: None };
    let (mut tail, mut batch) = (Tail::default(), BytesMut::new());
    while let Some(line) = merge.next().await {
        let text = shown(&line.text, wanted);
        match wanted.tail {
            Some(count) => tail.push(text, count),
            None => batch.extend_from_slice(&text),
        }
        if batch.len() >= BATCH {
            // The error of a reader who has left is no error of the log.
            let _ = write.send(batch.split().freeze()).await;
        }
    }
    tail.lines.iter().for_each(|text| batch.extend_from_slice(text));
    if !batch.is_empty() {
        let _ = write.send(batch.freeze()).await;
    }
    merge.broken.map_or(Ok(()), Err)
}

struct Merge<'a> {
    hosts: &'a mut [HostLines],
    silence: Duration,
    /// The next line of each host.
    heads: Vec<Option<Line>>,
    broken: Option<BoxError>,
}

impl Merge<'_> {
    /// The oldest line of all hosts.
    async fn next(&mut self) -> Option<Line> {
        let silence = self.silence;
        let empty = self.hosts.iter_mut().zip(&mut self.heads).filter(|(_, head)| head.is_none());
        let filling = empty.map(|(host, head)| async move {
            let line = tokio::time::timeout(silence, host.written()).await.unwrap_or_else(|_| Err(Silent.into()));
            if line.is_err() {
                host.written = 0;
            }
            line.map(|line| *head = line).err()
        });
        let errors = futures::future::join_all(filling).await;
        self.broken = self.broken.take().or(errors.into_iter().flatten().next());
        let times = self.heads.iter().enumerate().filter_map(|(place, head)| Some((head.as_ref()?.time, place)));
        let (_, oldest) = times.min()?;
        self.heads[oldest].take()
    }
}

/// The last lines of many.
#[derive(Default)]
struct Tail {
    lines: VecDeque<Bytes>,
    bytes: usize,
}

impl Tail {
    fn push(&mut self, line: Bytes, count: u64) {
        self.bytes += line.remaining();
        self.lines.push_back(line);
        while self.lines.len() as u64 > count || self.bytes > LARGEST_TAIL {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= oldest.remaining();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: u8, text: &str) -> String {
        format!("2026-01-01T00:00:{second:02}.000000000Z {text}\n")
    }

    /// A host that has written `text`, and sends it in pieces of `size` bytes.
    fn host(text: &str, size: usize) -> HostLines {
        let pieces: Vec<_> = text.as_bytes().chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        HostLines::new(text.len() as u64, futures::stream::iter(pieces))
    }

    async fn merged(hosts: &mut [HostLines], wanted: Wanted) -> (String, Result<(), BoxError>) {
        let mut text = Vec::new();
        let sink = futures::sink::unfold(&mut text, |text: &mut Vec<u8>, line: Bytes| async move {
            text.extend_from_slice(&line);
            Ok::<_, std::convert::Infallible>(text)
        });
        let outcome = write_merged(hosts, wanted, Duration::from_millis(50), std::pin::pin!(sink)).await;
        (String::from_utf8(text).unwrap(), outcome)
    }

    #[tokio::test]
    async fn lines_of_hosts_are_whole_and_in_the_order_of_time() {
        let (a, b) = (line(1, "a") + &line(4, "d") + &line(5, "e"), line(2, "b") + "no time\n" + &line(3, "c"));
        for size in [1, 7, 1000] {
            let mut hosts = [host(&a, size), host(&b, size)];
            assert_eq!(merged(&mut hosts, Wanted::default()).await.0, "a\nb\nno time\nc\nd\ne\n", "{size}");
        }
        let wanted = Wanted { timestamps: true, tail: None };
        assert_eq!(merged(&mut [host(&a, 9)], wanted).await.0, a);
    }

    #[tokio::test]
    async fn the_tail_is_of_all_hosts_together() {
        let (a, b) = (line(1, "a") + &line(4, "d"), line(2, "b") + &line(3, "c"));
        for (tail, expected) in [(0, ""), (1, "d\n"), (3, "b\nc\nd\n"), (9, "a\nb\nc\nd\n")] {
            let wanted = Wanted { tail: Some(tail), timestamps: false };
            assert_eq!(merged(&mut [host(&a, 100), host(&b, 100)], wanted).await.0, expected);
        }
    }

    #[tokio::test]
    async fn a_host_that_breaks_off_or_is_silent_does_not_take_the_others_lines() {
        let first = Bytes::from(line(1, "a"));
        let broken = futures::stream::iter([Ok(first.clone()), Err("gone".into())]);
        let mut hosts = [HostLines::new(1000, broken), host(&line(2, "b"), 100)];
        let (text, outcome) = merged(&mut hosts, Wanted::default()).await;
        assert_eq!((text.as_str(), outcome.unwrap_err().to_string().as_str()), ("a\nb\n", "gone"));

        let silent = futures::stream::iter([Ok(first)]).chain(futures::stream::pending());
        let mut hosts = [HostLines::new(1000, silent), host(&line(2, "b"), 100)];
        let (text, outcome) = merged(&mut hosts, Wanted::default()).await;
        assert_eq!(text, "a\nb\n");
        assert!(outcome.unwrap_err().to_string().contains("did not go on"));
    }

    #[tokio::test]
    async fn what_is_followed_comes_in_whole_lines() {
        let (written, next) = (line(1, "a"), line(2, "b") + &line(3, "c") + "2026-01-01T00:00:04Z d");
        let all = written.clone() + &next;
        let pieces: Vec<_> = all.as_bytes().chunks(5).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let mut host = HostLines::new(written.len() as u64, futures::stream::iter(pieces));
        assert_eq!(merged(std::slice::from_mut(&mut host), Wanted::default()).await.0, "a\n");
        let pieces: Vec<Bytes> = host.into_stream(Wanted::default()).map(Result::unwrap).collect().await;
        assert!(pieces.iter().all(|piece| piece.ends_with(b"\n")), "{pieces:?}");
        assert_eq!(pieces.concat(), b"b\nc\nd\n");
    }

    #[test]
    fn a_tail_is_bounded() {
        let mut tail = Tail::default();
        (0..20).for_each(|_| tail.push(Bytes::from(vec![b'x'; 1 << 20]), u64::MAX));
        assert_eq!(tail.lines.len(), 16);
    }
}
