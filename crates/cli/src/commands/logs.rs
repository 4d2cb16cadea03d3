//! `evroc run logs`: the output of a service's containers, each line once, also across restarts of the cloud.

use std::cmp::Ordering;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use evroc_api::run::Service;
use futures::StreamExt;
use http_body_util::BodyExt;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Mutex;

use super::list::encode;
use crate::api;
use crate::config::Cloud;
use crate::terminal::printable;

/// The API group of services.
pub(super) const GROUP: &str = "run.evroclabs.net";

/// How many lines of each service are shown if several may be and no number is given, as kubectl does.
const TAIL_OF_EACH: u64 = 10;
/// Between two tries to go on with a log that broke off.
const PAUSE: Duration = Duration::from_millis(500);

/// The lines of a log that are shown, and how.
#[derive(Clone)]
pub struct Lines {
    /// Follow the log until the service is deleted.
    pub follow: bool,
    /// Only this many lines from the end.
    pub tail: Option<u64>,
    /// Only lines since this time.
    pub since: Option<String>,
    /// Whether lines begin with their time.
    pub timestamps: bool,
    /// Whether lines begin with their service.
    pub prefix: bool,
}

/// Writes the log of a service to `out`. One that is followed and breaks off (the cloud or a host restarts) goes on with the next line.
pub async fn print(
    cloud: &Cloud,
    service: &str,
    lines: &Lines,
    out: &Mutex<impl AsyncWrite + Unpin>,
) -> anyhow::Result<()> {
    let mut place = Place::new(service, lines);
    let mut is_resumed = false;
    loop {
        let mut body = match api::get(cloud, &path(cloud, service, lines, &place, is_resumed), "*/*").await {
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
                Ok(Ok(bytes)) => write(out, &place.take(&bytes)).await?,
                Ok(Err(_trailers)) => {}
                Err(error) => break Some(error),
            }
        };
        match end {
            None => return write(out, &place.rest()).await,
            // The cause is a library's message about a connection; the user needs to know that it is temporary.
            Some(_) if !lines.follow => {
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

/// Writes whole lines, so that those of several services do not mix.
async fn write(out: &Mutex<impl AsyncWrite + Unpin>, lines: &[u8]) -> anyhow::Result<()> {
    let mut out = out.lock().await;
    out.write_all(&printable(lines)).await?;
    Ok(out.flush().await?)
}

/// Writes the logs of all services that have the labels: one after the other, or as they are written if they are followed. A log that
/// cannot be read is named, and the others are shown.
pub async fn print_selected(
    cloud: &Cloud,
    selector: &str,
    most: usize,
    lines: Lines,
    out: &Mutex<impl AsyncWrite + Unpin>,
) -> anyhow::Result<()> {
    let services = Api::<Service>::namespaced(cloud.client.clone(), &cloud.namespace);
    let found =
        services.list_metadata(&ListParams::default().labels(selector)).await.context("cannot list services")?;
    let names: Vec<String> = found.items.iter().map(ResourceExt::name_any).collect();
    if names.is_empty() {
        eprintln!("no service has the labels {selector}");
        return Ok(());
    }
    if lines.follow && names.len() > most {
        bail!(
            "{} services have the labels {selector}, but at most {most} are followed: see --max-log-requests",
            names.len()
        );
    }
    let lines = Lines { tail: lines.tail.or(Some(TAIL_OF_EACH)), ..lines };
    let at_once = if lines.follow { names.len() } else { 1 };
    let failed: Vec<String> = futures::stream::iter(&names)
        .map(async |name| (name, print(cloud, name, &lines, out).await))
        .buffered(at_once)
        .filter_map(async |(name, printed)| printed.err().map(|error| format!("{name}: {error:#}")))
        .collect()
        .await;
    if failed.is_empty() { Ok(()) } else { Err(anyhow!("cannot read all logs\n{}", failed.join("\n"))) }
}

fn path(cloud: &Cloud, service: &str, lines: &Lines, place: &Place, is_resumed: bool) -> String {
    let mut query = format!("follow={}&timestamps=true", lines.follow);
    match (&place.time, &lines.since) {
        (Some(time), _) => query += &format!("&sinceTime={time}"),
        (None, Some(since)) => query += &format!("&sinceTime={}", encode(since)),
        (None, None) => {}
    }
    // The lines before the break were already printed; without a position none were.
    if let (Some(tail), false) = (lines.tail, is_resumed && place.time.is_some()) {
        query += &format!("&tailLines={tail}");
    }
    api::path(cloud, GROUP, "services", &format!("/{service}/log?{query}"))
}

fn is_passing(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<api::Refused>() {
        Some(refused) => refused.code.is_server_error() || refused.code == http::StatusCode::TOO_MANY_REQUESTS,
        None => true,
    }
}

/// The position in a log: the time of the newest line, and the number of lines with that time.
struct Place {
    /// Whether lines are shown with their time.
    timestamps: bool,
    /// The beginning of each shown line.
    prefix: String,
    time: Option<String>,
    lines_of_time: usize,
    /// Lines of `time` that the log begins with again.
    to_skip: usize,
    /// A line whose end has not come yet.
    begun: Vec<u8>,
}

impl Place {
    fn new(service: &str, lines: &Lines) -> Self {
        Self {
            timestamps: lines.timestamps,
            prefix: if lines.prefix { format!("[service/{service}] ") } else { String::new() },
            time: None,
            lines_of_time: 0,
            to_skip: 0,
            begun: Vec::new(),
        }
    }

    /// The whole lines that came, as they are to be shown.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.begun.extend_from_slice(bytes);
        let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
        let rest = self.begun.split_off(end + 1);
        let lines = std::mem::replace(&mut self.begun, rest);
        let mut shown = Vec::new();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            self.show(line, &mut shown);
        }
        shown
    }

    /// A last line without an end.
    fn rest(&mut self) -> Vec<u8> {
        let (line, mut shown) = (std::mem::take(&mut self.begun), Vec::new());
        if !line.is_empty() {
            self.show(&line, &mut shown);
        }
        shown
    }

    /// The connection was lost: what comes next begins with the lines of the last time.
    fn begin_again(&mut self) {
        self.begun.clear();
        self.to_skip = self.lines_of_time;
    }

    fn show(&mut self, line: &[u8], shown: &mut Vec<u8>) {
        let space = line.iter().position(|byte| *byte == b' ').unwrap_or(0);
        let time = String::from_utf8_lossy(&line[..space]);
        match self.time.as_deref().map(|last| last.cmp(&time)) {
            Some(Ordering::Equal) if self.to_skip > 0 => {
                self.to_skip -= 1;
                return;
            }
            Some(Ordering::Equal) => self.lines_of_time += 1,
            // Another replica's, looked at a moment later.
            Some(Ordering::Greater) => {}
            Some(Ordering::Less) | None => {
                self.time = Some(time.into_owned());
                (self.lines_of_time, self.to_skip) = (1, 0);
            }
        }
        shown.extend_from_slice(self.prefix.as_bytes());
        shown.extend_from_slice(if self.timestamps { line } else { &line[line.len().min(space + 1)..] });
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::path::PathBuf;
    use std::sync::Arc;

    use http::{Request, Response, StatusCode};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    fn place(timestamps: bool) -> Place {
        Place::new("a", &Lines { timestamps, ..all() })
    }

    fn all() -> Lines {
        Lines { follow: false, tail: None, since: None, timestamps: false, prefix: false }
    }

    #[test]
    fn each_line_is_shown_once_across_a_break() {
        let mut place = place(false);
        assert_eq!(place.take(b"T1 a\nT2 b\nT2 c\nT2 hal"), b"a\nb\nc\n");
        place.begin_again();
        assert_eq!(place.time.as_deref(), Some("T2"));
        assert_eq!(place.take(b"T2 b\nT2 c\nT2 half\nT3 d\n"), b"half\nd\n");
        place.begin_again();
        place.timestamps = true;
        assert_eq!(place.take(b"T3 d\nT3 e\nT4 no end"), b"T3 e\n");
        assert_eq!(place.rest(), b"T4 no end");
    }

    #[test]
    fn lines_rotated_away_meanwhile_hide_nothing() {
        let mut place = place(false);
        place.take(b"T1 a\nT1 b\n");
        place.begin_again();
        assert_eq!(place.take(b"T2 c\nT2 d\n"), b"c\nd\n");
    }

    /// A cloud whose services `shop` and `cart` have the label `app=shop`, and where the log of `lost` cannot be read. Logs that are
    /// followed begin when two of them are.
    fn cloud(asked: Arc<std::sync::Mutex<Vec<String>>>) -> Cloud {
        let two = Arc::new(tokio::sync::Barrier::new(2));
        let answer = move |request: Request<Body>| {
            let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
            let name = path.trim_end_matches("/log").rsplit('/').next().unwrap_or_default().to_owned();
            let (code, body) = match path.strip_prefix("/apis/run.evroclabs.net/v1alpha1/namespaces/demo/services") {
                Some("") => {
                    let names = match query.as_str() {
                        query if query.contains("labelSelector=app%3Dshop") => &["cart", "shop"][..],
                        query if query.contains("labelSelector=app%3Dbroken") => &["lost", "shop"],
                        _ => &[],
                    };
                    let item = |name| json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": name}});
                    let items: Vec<_> = names.iter().map(item).collect();
                    let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": items});
                    (StatusCode::OK, list.to_string())
                }
                Some("/lost/log") => (StatusCode::SERVICE_UNAVAILABLE, "no host".to_owned()),
                Some(_) => (StatusCode::OK, format!("T1 {name} one\nT2 {name} two\n")),
                None => (StatusCode::NOT_FOUND, String::new()),
            };
            asked.lock().unwrap().push(format!("{path}?{query}"));
            let response = Response::builder().status(code).body(Body::from(body.into_bytes())).unwrap();
            let two = query.contains("follow=true").then(|| two.clone());
            async move {
                if let Some(two) = two {
                    two.wait().await;
                }
                Ok::<_, Infallible>(response)
            }
        };
        let client = kube::Client::new(tower::service_fn(answer), "demo");
        Cloud { client, namespace: "demo".into(), folder: PathBuf::new(), kubeconfig: PathBuf::new() }
    }

    /// The output for a selector, how it ended, and the paths of the logs that were asked for.
    async fn selected(selector: &str, most: usize, lines: Lines) -> (String, Result<(), String>, Vec<String>) {
        let asked = Arc::<std::sync::Mutex<Vec<String>>>::default();
        let out = Mutex::new(Vec::new());
        let cloud = cloud(asked.clone());
        let printing = print_selected(&cloud, selector, most, lines, &out);
        let ended = tokio::time::timeout(Duration::from_secs(30), printing).await.expect("all logs are read");
        let logs = asked.lock().unwrap().iter().filter(|path| path.contains("/log?")).cloned().collect();
        (String::from_utf8(out.into_inner()).unwrap(), ended.map_err(|error| error.to_string()), logs)
    }

    #[tokio::test]
    async fn a_selector_shows_the_end_of_each_of_its_services() {
        let (text, ended, asked) = selected("app=shop", 5, Lines { prefix: true, ..all() }).await;
        let [one, two] =
            ["cart", "shop"].map(|name| format!("[service/{name}] {name} one\n[service/{name}] {name} two\n"));
        assert_eq!((text, ended), (one + &two, Ok(())));
        assert!(asked.len() == 2 && asked.iter().all(|path| path.ends_with("&tailLines=10")), "{asked:?}");
        let (_, _, asked) = selected("app=shop", 5, Lines { tail: Some(3), ..all() }).await;
        assert!(asked.iter().all(|path| path.ends_with("&tailLines=3")), "{asked:?}");
        assert_eq!(selected("app=nothing", 5, all()).await, (String::new(), Ok(()), vec![]));
    }

    #[tokio::test]
    async fn followed_services_are_read_at_the_same_time_and_bounded() {
        let follow = Lines { follow: true, ..all() };
        let (text, ended, asked) = selected("app=shop", 2, follow.clone()).await;
        assert!(ended.is_ok() && asked.iter().all(|path| path.contains("follow=true")), "{asked:?}");
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["cart one", "cart two", "shop one", "shop two"]);
        let (_, ended, asked) = selected("app=shop", 1, follow).await;
        assert!(ended.unwrap_err().contains("--max-log-requests") && asked.is_empty());
    }

    #[tokio::test]
    async fn a_log_that_cannot_be_read_hides_no_other() {
        let (text, ended, _) = selected("app=broken", 5, all()).await;
        assert_eq!(text, "shop one\nshop two\n");
        let error = ended.unwrap_err();
        assert!(error.contains("lost: ") && error.contains("no host"), "{error}");
    }
}
