//! Answers requests of control through the tunnel: connections into guests, serial consoles, logs.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use evroc_api::infra::Replica;
use evroc_api::run::{SERVICE_LABEL, Service};
use evroc_controller::chain;
use evroc_tunnel::{BoxBytes, BoxDuplex, HostLog, LogOptions, MachineAction, Refusal, TunnelHandler};
use futures::StreamExt;
use http::StatusCode;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::watcher::{self, Event, watch_object, watcher};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::machine::Machines;
use super::replica::Replicas;
use super::service_log::{Following, Form, KEPT_BYTES, lines_from_end};
use crate::machine::guests::Log;
use crate::machine::owner::{Order, OrderError};
use crate::machine::request::Request;
use crate::owner::AskError;

/// A guest on the same host answers in milliseconds; one that is busy booting under emulation may take seconds. A longer deadline would
/// only hide that nothing answers.
const CONNECT: Duration = Duration::from_secs(10);
/// How much of its last output a console shows first, in bytes: a screen, so that a prompt that was printed before is visible.
const REPLAY: usize = 4 << 10;
/// How often followed logs are read.
const LOOK: Duration = Duration::from_millis(200);
/// How many pieces of a log may wait for a slow reader.
const WAITING: usize = 16;

/// Opens streams to what runs on this host.
pub struct Streams {
    machines: Arc<Machines>,
    replicas: Arc<Replicas>,
}

impl Streams {
    /// Streams to these machines and replicas.
    pub fn new(machines: Arc<Machines>, replicas: Arc<Replicas>) -> Arc<Self> {
        Arc::new(Self { machines, replicas })
    }

    /// Refuses a request that is not legal for the machine now.
    async fn check(&self, uid: &str, request: Request) -> Result<(), Refusal> {
        self.machines.owned().may(uid, request).await.map_err(refused)
    }
}

fn refused(error: OrderError) -> Refusal {
    match error {
        AskError::Refused(why) => Refusal::new(StatusCode::CONFLICT, why),
        error => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, chain(&error)),
    }
}

#[async_trait]
impl TunnelHandler for Streams {
    async fn dial_machine(&self, uid: &str, port: u16) -> Result<BoxDuplex, Refusal> {
        self.check(uid, Request::Console).await?;
        let late = || {
            let message = format!("the guest did not answer on port {port} within {} s", CONNECT.as_secs());
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, message)
        };
        match tokio::time::timeout(CONNECT, self.machines.connect(uid, port)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(unreachable(&error, port)),
            Err(_) => Err(late()),
        }
    }

    async fn console(&self, uid: &str) -> Result<BoxDuplex, Refusal> {
        self.check(uid, Request::Console).await?;
        let console = self.machines.owned().guests().console(uid, REPLAY).await;
        console.map_err(|error| Refusal::new(StatusCode::BAD_GATEWAY, chain(&error)))
    }

    async fn act(&self, uid: &str, action: MachineAction) -> Result<(), Refusal> {
        let order = match action {
            MachineAction::Pause => Order::Pause,
            MachineAction::Resume => Order::Resume,
            MachineAction::Reset => Order::Reset,
            MachineAction::ForceStop => Order::Stop(Duration::ZERO),
        };
        self.machines.owned().ask(uid, order).await.map(|_| ()).map_err(refused)
    }

    async fn service_log(&self, namespace: &str, service: &str, options: LogOptions) -> Result<HostLog, Refusal> {
        let api = Api::<Replica>::namespaced(self.replicas.client(), namespace);
        let own = format!("spec.hostName={}", self.replicas.host());
        let label = format!("{SERVICE_LABEL}={service}");
        let listed = api.list(&ListParams::default().fields(&own).labels(&label)).await;
        let listed = listed.map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, chain(&error)))?;

        let form = Form { since: options.since, timestamps: options.timestamps };
        let mut following = Following::new(self.replicas.logs().clone(), namespace, service, form);
        for replica in &listed.items {
            self.begin(&mut following, replica);
        }
        let (mut following, mut text) = look(following).await.map_err(|error| {
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the logs cannot be read: {error}"))
        })?;
        if !options.follow {
            text.extend(following.rest());
        }
        let text = Bytes::from(text);
        let written = options.tail_lines.map_or(text.clone(), |lines| text.slice_ref(lines_from_end(&text, lines)));
        if !options.follow {
            return Ok(HostLog { written, follow: None });
        }
        let (sender, receiver) = mpsc::channel(WAITING);
        let changes = watcher(api, watcher::Config::default().fields(&own).labels(&label));
        let deleted = deleted(Api::namespaced(self.replicas.client(), namespace), service.to_owned());
        tokio::spawn(follow(following, changes, deleted, self.replicas.clone(), sender));
        Ok(HostLog { written, follow: Some(Box::pin(ReceiverStream::new(receiver))) })
    }

    async fn serial_log(&self, uid: &str, tail_bytes: u64) -> Result<BoxBytes, Refusal> {
        self.log(Log::Machine(uid), tail_bytes, "the guest has not been started yet: it has written nothing").await
    }

    async fn previous_serial_log(&self, virtual_machine_uid: &str, tail_bytes: u64) -> Result<BoxBytes, Refusal> {
        let none =
            "this host has no log of a previous run: the guest was not started before, or its log has been removed";
        self.log(Log::Previous(virtual_machine_uid), tail_bytes, none).await
    }

    async fn metrics(&self) -> Result<Bytes, Refusal> {
        Ok(evroc_metrics::Registry::process().text().into())
    }
}

impl Streams {
    /// The end of a serial log; `none` explains to the user why there is none.
    async fn log(&self, log: Log<'_>, tail_bytes: u64, none: &'static str) -> Result<BoxBytes, Refusal> {
        match self.machines.owned().guests().serial_log(log, tail_bytes).await {
            Ok(Some(bytes)) => Ok(Box::pin(futures::stream::iter([Ok(Bytes::from(bytes))]))),
            Ok(None) => Err(Refusal::new(StatusCode::CONFLICT, none)),
            Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, chain(&error))),
        }
    }

    fn begin(&self, following: &mut Following, replica: &Replica) {
        let uid = replica.uid().unwrap_or_default();
        let folder = self.replicas.containers().log_dir(&uid);
        following.begin(uid, folder, KEPT_BYTES);
    }
}

/// Explains a failed connection to the user.
fn unreachable(error: &io::Error, port: u16) -> Refusal {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Refusal::new(
            StatusCode::BAD_GATEWAY,
            format!("the guest refused the connection: nothing listens on its port {port}"),
        ),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::TimedOut => Refusal::new(
            StatusCode::GATEWAY_TIMEOUT,
            "the guest does not answer on the network: it may still be booting, or has not taken its address by DHCP",
        ),
        io::ErrorKind::NotFound => Refusal::new(StatusCode::CONFLICT, error.to_string()),
        _ => Refusal::new(StatusCode::BAD_GATEWAY, format!("the guest's port {port} cannot be reached: {error}")),
    }
}

/// Reads new output, outside of the async workers.
async fn look(mut following: Following) -> io::Result<(Following, Vec<u8>)> {
    let read = tokio::task::spawn_blocking(move || following.read().map(|text| (following, text))).await;
    read.map_err(io::Error::other)?
}

/// Ends when the service no longer exists.
async fn deleted(services: Api<Service>, name: String) {
    let mut states = std::pin::pin!(watch_object(services, &name));
    loop {
        match states.next().await {
            Some(Ok(None)) => return,
            Some(Ok(Some(_))) => {}
            Some(Err(error)) => {
                tracing::debug!(error = chain(&error), "cannot watch a service, trying again");
                tokio::time::sleep(LOOK).await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Sends the output of the replicas of a service, including new ones, until the receiver is closed or the service and its replicas have
/// ended.
async fn follow(
    mut following: Following,
    changes: impl futures::Stream<Item = watcher::Result<Event<Replica>>>,
    deleted: impl Future<Output = ()>,
    replicas: Arc<Replicas>,
    sender: mpsc::Sender<io::Result<Bytes>>,
) {
    let mut changes = std::pin::pin!(changes);
    let mut deleted = std::pin::pin!(deleted);
    let mut is_deleted = false;
    let mut listed = HashSet::new();
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = sender.closed() => return,
            () = &mut deleted, if !is_deleted => is_deleted = true,
            change = changes.next() => {
                let folder = |uid: &str| replicas.containers().log_dir(uid);
                match change {
                    Some(Ok(Event::Apply(replica))) => {
                        let uid = replica.uid().unwrap_or_default();
                        following.begin(uid.clone(), folder(&uid), KEPT_BYTES);
                    }
                    Some(Ok(Event::Delete(replica))) => following.end(&replica.uid().unwrap_or_default()),
                    Some(Ok(Event::Init)) => listed.clear(),
                    Some(Ok(Event::InitApply(replica))) => {
                        let uid = replica.uid().unwrap_or_default();
                        following.begin(uid.clone(), folder(&uid), KEPT_BYTES);
                        listed.insert(uid);
                    }
                    Some(Ok(Event::InitDone)) => following.end_others(|uid| listed.contains(uid)),
                    // Control restarts: known replicas are followed meanwhile, and the next try lists the changes.
                    Some(Err(error)) => {
                        tracing::debug!(error = chain(&error), "cannot watch replicas, trying again");
                        tokio::time::sleep(LOOK).await;
                    }
                    None => return,
                }
            }
            _ = looks.tick() => match look(following).await {
                Ok((again, text)) => {
                    following = again;
                    if !text.is_empty() && sender.send(Ok(text.into())).await.is_err() {
                        return;
                    }
                    if is_deleted && following.is_at_rest() {
                        return;
                    }
                }
                Err(error) => {
                    // A closed receiver needs no error.
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            },
        }
    }
}
