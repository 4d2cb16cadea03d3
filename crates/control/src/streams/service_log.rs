//! Logs of services: what the containers wrote, on all hosts.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use evroc_api::conditions::{self, READY};
use evroc_api::infra::Host;
use evroc_apiserver::body::{BoxError, ResponseBody};
use evroc_apiserver::{ApiError, Connect, ConnectRequest};
use evroc_tunnel::{LogAnswer, LogOptions, TunnelError, Tunnels};
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{StreamExt, TryStreamExt};
use http::{Response, header};
use http_body_util::BodyExt;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, PollSender};

use super::lines::{HostLines, SILENCE, Wanted, write_merged};
use super::{Streams, failed, query, text};

/// How long hosts that have not answered are waited for when another one has. Lower loses the lines of hosts that are busy, higher lets
/// a dead host delay the lines of all others.
const PATIENCE: Duration = Duration::from_secs(2);
/// The pause before a host that does not answer is asked again, when its log is followed.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// How many lines may wait for a slow reader.
const WAITING: usize = 64;

/// Logs of services.
pub(super) struct ServiceLog(pub Streams);

#[async_trait]
impl Connect for ServiceLog {
    async fn connect(&self, stream_request: ConnectRequest) -> Result<Response<ResponseBody>, ApiError> {
        let place = self.0.0.places.take(&stream_request.identity)?;
        let options = LogOptions {
            follow: query::flag(&stream_request, "follow"),
            tail_lines: query::number(&stream_request, "tailLines")?,
            since: query::time(&stream_request, "sinceTime")?,
            // Lines of several hosts are put in order by it.
            timestamps: true,
        };
        let wanted = Wanted { tail: options.tail_lines, timestamps: query::flag(&stream_request, "timestamps") };
        let listed = Api::<Host>::all(self.0.client()?).list(&ListParams::default()).await;
        let hosts = listed.map_err(ApiError::internal)?.items;
        let question = Question {
            tunnels: self.0.0.tunnels.clone(),
            namespace: stream_request.namespace,
            service: stream_request.name,
            options,
        };
        let mut asking: FuturesUnordered<_> = hosts.iter().map(|host| question.clone().ask(host)).collect();
        let Opened { logs, problems } = open(&mut asking).await;
        if logs.is_empty()
            && let Some((_, problem)) = problems.first()
        {
            // Some logs are better than none; without a host there is nothing to show.
            return Err(failed(&format!("service \"{}\"", question.service), problem));
        }
        let late: Vec<String> = problems.iter().map(|(host, _)| host.clone()).collect();
        let silent = hosts.iter().map(|host| host.name_any()).filter(|host| !logs.iter().any(|(name, _)| name == host));
        let warning = warning(&silent.collect::<Vec<_>>());
        let logs = logs.into_iter().map(|(_, log)| lines(log)).collect();
        let later: BoxStream<'static, HostLines> = match options.follow {
            true => {
                let again = late.into_iter().map(|host| question.clone().ask_until_answered(host));
                let again: FuturesUnordered<_> = again.collect();
                let asking = asking.filter_map({
                    let question = question.clone();
                    move |(host, answer)| {
                        let question = question.clone();
                        async move {
                            match answer {
                                Ok(log) => Some(log),
                                Err(_) => Some(question.ask_until_answered(host).await),
                            }
                        }
                    }
                });
                futures::stream::select(again, asking).map(lines).boxed()
            }
            false => futures::stream::empty().boxed(),
        };
        let (sender, mut receiver) = mpsc::channel(WAITING);
        let (follow, stop) = (options.follow, self.0.0.stop.clone());
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = write(logs, later, wanted, follow, stop, sender.clone()).await {
                // A reader who has left needs no error.
                let _ = sender.send(Err(error)).await;
            }
        });
        let mut response = text(futures::stream::poll_fn(move |context| receiver.poll_recv(context)));
        if let Some(warning) = warning.and_then(|warning| warning.try_into().ok()) {
            response.headers_mut().insert(header::WARNING, warning);
        }
        Ok(response)
    }
}

/// The request to each host.
#[derive(Clone)]
struct Question {
    tunnels: Tunnels,
    namespace: String,
    service: String,
    options: LogOptions,
}

impl Question {
    /// Asks a host. One that is known not to be ready is not waited for.
    fn ask(self, host: &Host) -> impl Future<Output = (String, Result<LogAnswer, TunnelError>)> + Send + use<> {
        let status = host.status.as_ref();
        let is_ready = status.is_some_and(|status| conditions::is_true(&status.conditions, READY));
        let host = host.name_any();
        async move {
            if !is_ready && !self.tunnels.is_connected(&host) {
                return (host.clone(), Err(TunnelError::NotConnected { host }));
            }
            let answer = self.ask_once(&host).await;
            (host, answer)
        }
    }

    async fn ask_once(&self, host: &str) -> Result<LogAnswer, TunnelError> {
        self.tunnels.service_log(host, (&self.namespace, &self.service), self.options).await
    }

    async fn ask_until_answered(self, host: String) -> LogAnswer {
        loop {
            tokio::time::sleep(ASK_AGAIN).await;
            match self.ask_once(&host).await {
                Ok(log) => return log,
                Err(error) => tracing::debug!(host, error = evroc_controller::chain(&error), "a host gives no log"),
            }
        }
    }
}

struct Opened {
    logs: Vec<(String, LogAnswer)>,
    problems: Vec<(String, TunnelError)>,
}

/// Waits for the answers of the hosts: for all of them, but no longer than [`PATIENCE`] when one has answered.
async fn open(asking: &mut (impl futures::Stream<Item = (String, Result<LogAnswer, TunnelError>)> + Unpin)) -> Opened {
    let mut opened = Opened { logs: vec![], problems: vec![] };
    let mut patience = std::pin::pin!(tokio::time::sleep(PATIENCE));
    let mut is_over = false;
    while !is_over || opened.logs.is_empty() {
        tokio::select! {
            answer = asking.next() => match answer {
                Some((host, Ok(log))) => opened.logs.push((host, log)),
                Some((host, Err(problem))) => opened.problems.push((host, problem)),
                None => break,
            },
            () = &mut patience, if !is_over => is_over = true,
        }
    }
    opened
}

fn lines(log: LogAnswer) -> HostLines {
    HostLines::new(log.written, log.body.into_data_stream().map_err(BoxError::from))
}

/// A header for the user, as Kubernetes' warnings are.
fn warning(silent: &[String]) -> Option<String> {
    let hosts = silent.join(", ");
    (!silent.is_empty()).then(|| format!("299 - \"lines of hosts that do not answer are missing: {hosts}\""))
}

/// Writes what has been written, and what is written from now on if the log is followed, until the reader leaves, or the service and its
/// replicas have ended.
async fn write(
    mut logs: Vec<HostLines>,
    mut later: BoxStream<'static, HostLines>,
    wanted: Wanted,
    follow: bool,
    stop: CancellationToken,
    sender: mpsc::Sender<Result<Bytes, BoxError>>,
) -> Result<(), BoxError> {
    let sink = futures::SinkExt::with(PollSender::new(sender.clone()), |line| async { Ok::<_, BoxError>(Ok(line)) });
    let sink = std::pin::pin!(sink);
    tokio::select! {
        merged = write_merged(&mut logs, wanted, SILENCE, sink) => merged?,
        () = sender.closed() => return Ok(()),
    }
    if !follow {
        return Ok(());
    }
    let mut following = futures::stream::select_all(logs.into_iter().map(|log| log.into_stream(wanted)));
    let mut is_late_over = false;
    loop {
        let lines = tokio::select! {
            () = sender.closed() => return Ok(()),
            () = stop.cancelled() => return Err("the cloud is restarting".into()),
            log = later.next(), if !is_late_over => {
                match log {
                    Some(log) => following.push(log.into_stream(wanted)),
                    None => is_late_over = true,
                }
                continue;
            }
            lines = following.next() => lines,
        };
        let Some(lines) = lines else { return Ok(()) };
        if sender.send(Ok(lines?)).await.is_err() {
            return Ok(());
        }
    }
}
