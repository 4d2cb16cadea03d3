//! `evroc run logs`: the output of a service's containers, each line once, also across restarts of the cloud.

use std::cmp::Ordering;
use std::time::Duration;

use anyhow::anyhow;
use http_body_util::BodyExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::list::encode;
use crate::api;
use crate::config::Cloud;
use crate::terminal::printable;

/// The API group of services.
pub(super) const GROUP: &str = "run.evroclabs.net";

/// Between two tries to go on with a log that broke off.
const PAUSE: Duration = Duration::from_millis(500);

/// The selection of a log.
pub struct Request {
    /// The service.
    pub service: String,
    /// Follow the log until the service is deleted.
    pub follow: bool,
    /// Only this many lines from the end.
    pub tail: Option<u64>,
    /// Only lines since this time.
    pub since: Option<String>,
    /// Whether lines begin with their time.
    pub timestamps: bool,
}

/// Writes the log to `out`. One that is followed and breaks off (the cloud or a host restarts) goes on with the next line.
pub async fn print(cloud: &Cloud, request: &Request, out: &mut (impl AsyncWrite + Unpin)) -> anyhow::Result<()> {
    let mut place = Place::default();
    let mut is_resumed = false;
    loop {
        let mut body = match api::get(cloud, &path(cloud, request, &place, is_resumed), "*/*").await {
            Ok(answer) => answer.into_body(),
            // A permanent refusal (the service was deleted) ends it.
            Err(error) if is_resumed && is_passing(&error) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        let end = loop {
            let Some(frame) = body.frame().await else { break None };
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(bytes)) => {
                    out.write_all(&printable(&place.take(&bytes, request.timestamps))).await?;
                    out.flush().await?;
                }
                Ok(Err(_trailers)) => {}
                Err(error) => break Some(error),
            }
        };
        match end {
            None => return Ok(out.write_all(&printable(&place.rest(request.timestamps))).await?),
            // The cause is a library's message about a connection; the user needs to know that it is temporary.
            Some(_) if !request.follow => {
                return Err(anyhow!("the log broke off, the cloud or a host may be restarting: try again"));
            }
            Some(_) => {
                place.begin_again();
                is_resumed = true;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn path(cloud: &Cloud, request: &Request, place: &Place, is_resumed: bool) -> String {
    let mut query = format!("follow={}&timestamps=true", request.follow);
    match (&place.time, &request.since) {
        (Some(time), _) => query += &format!("&sinceTime={time}"),
        (None, Some(since)) => query += &format!("&sinceTime={}", encode(since)),
        (None, None) => {}
    }
    // The lines before the break were already printed; without a position none were.
    if let (Some(lines), false) = (request.tail, is_resumed && place.time.is_some()) {
        query += &format!("&tailLines={lines}");
    }
    api::path(cloud, GROUP, "services", &format!("/{}/log?{query}", request.service))
}

fn is_passing(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<api::Refused>() {
        Some(refused) => refused.code.is_server_error() || refused.code == http::StatusCode::TOO_MANY_REQUESTS,
        None => true,
    }
}

/// The position in a log: the time of the newest line, and the number of lines with that time.
#[derive(Default)]
struct Place {
    time: Option<String>,
    lines_of_time: usize,
    /// Lines of `time` that the log begins with again.
    to_skip: usize,
    /// A line whose end has not come yet.
    begun: Vec<u8>,
}

impl Place {
    /// The whole lines that came, as they are to be shown.
    fn take(&mut self, bytes: &[u8], timestamps: bool) -> Vec<u8> {
        self.begun.extend_from_slice(bytes);
        let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = self.begun.split_off(end + 1);
        let lines = std::mem::replace(&mut self.begun, rest);
        let mut shown = Vec::new();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            shown.extend_from_slice(self.show(line, timestamps));
        }
        shown
    }

    /// A last line without an end.
    fn rest(&mut self, timestamps: bool) -> Vec<u8> {
        let line = std::mem::take(&mut self.begun);
        if line.is_empty() { line } else { self.show(&line, timestamps).to_vec() }
    }

    /// The connection was lost: what comes next begins with the lines of the last time.
    fn begin_again(&mut self) {
        self.begun.clear();
        self.to_skip = self.lines_of_time;
    }

    fn show<'a>(&mut self, line: &'a [u8], timestamps: bool) -> &'a [u8] {
        let space = line.iter().position(|byte| *byte == b' ').unwrap_or(0);
        let time = String::from_utf8_lossy(&line[..space]);
        match self.time.as_deref().map(|last| last.cmp(&time)) {
            Some(Ordering::Equal) if self.to_skip > 0 => {
                self.to_skip -= 1;
                return &[];
            }
            Some(Ordering::Equal) => self.lines_of_time += 1,
            // Another replica's, looked at a moment later.
            Some(Ordering::Greater) => {}
            Some(Ordering::Less) | None => {
                self.time = Some(time.into_owned());
                (self.lines_of_time, self.to_skip) = (1, 0);
            }
        }
        if timestamps { line } else { &line[line.len().min(space + 1)..] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_shown_once_across_a_break() {
        let mut place = Place::default();
        assert_eq!(place.take(b"T1 a\nT2 b\nT2 c\nT2 hal", false), b"a\nb\nc\n");
        place.begin_again();
        assert_eq!(place.time.as_deref(), Some("T2"));
        assert_eq!(place.take(b"T2 b\nT2 c\nT2 half\nT3 d\n", false), b"half\nd\n");
        place.begin_again();
        assert_eq!(place.take(b"T3 d\nT3 e\nT4 no end", true), b"T3 e\n");
        assert_eq!(place.rest(true), b"T4 no end");
    }

    #[test]
    fn lines_rotated_away_meanwhile_hide_nothing() {
        let mut place = Place::default();
        place.take(b"T1 a\nT1 b\n", false);
        place.begin_again();
        assert_eq!(place.take(b"T2 c\nT2 d\n", false), b"c\nd\n");
    }
}
