//! The state of a VPC on this host, and the requests that change it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::kernel::Held;
use super::plan::Standing;
use super::record::Record;
use crate::net::dhcp::server::DhcpServer;
use crate::net::error::NetworkError;
use crate::net::netns::Netns;
use crate::net::network::{PortSpec, TapState, VpcSpec};

type Reply<T> = oneshot::Sender<Result<T, NetworkError>>;

/// A request to a VPC's owner.
pub(super) enum Ask {
    /// Make it like its record: at the start of the agent.
    Converge(Reply<()>),
    EnsurePort(VpcSpec, PortSpec, Reply<TapState>),
    OpenTap(String, Reply<OwnedFd>),
    RemovePort(String, Reply<()>),
    /// Remove it with everything in it.
    Remove(Reply<()>),
    /// Do the due work.
    Upkeep,
}

/// The kind of an [`Ask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Change,
    Upkeep,
}

/// A VPC on this host: the state that its owner works on, and the visible part of it.
#[derive(Default)]
pub(super) struct Vpc {
    /// Only turns take this lock, and those of one VPC do not overlap.
    pub(super) state: tokio::sync::Mutex<State>,
    view: Mutex<View>,
}

/// The visible state of a VPC.
#[derive(Default, Clone)]
pub(super) struct View {
    pub(super) ports: Vec<String>,
    pub(super) netns: Option<Arc<Netns>>,
    /// When something is due without a request.
    pub(super) due: Option<Instant>,
}

impl Vpc {
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
pub(super) struct State {
    pub(super) known: Known,
    pub(super) netns: Option<Arc<Netns>>,
    pub(super) dhcp: Option<DhcpServer>,
    pub(super) standing: Option<Standing>,
    /// The guests' addresses when the record was read, until the namespace is known.
    pub(super) held: Held,
    /// When the last port was removed.
    pub(super) empty_since: Option<Instant>,
    /// When the VPC was set up last, or failed to be, and the pause that follows.
    pub(super) looked: Option<(Instant, Duration)>,
}

/// The knowledge about the desired state.
#[derive(Default)]
pub(super) enum Known {
    #[default]
    NotLoaded,
    Nothing,
    Record(Record),
    Left(Left),
}

/// A VPC whose record cannot be read.
pub(super) struct Left {
    pub(super) why: Arc<NetworkError>,
    /// The record has a newer version: never overwritten.
    pub(super) is_newer: bool,
    /// Ports that were requested since.
    pub(super) ports: BTreeMap<String, PortSpec>,
}

impl State {
    pub(super) fn view(&self, linger: Duration) -> View {
        let ports = match &self.known {
            Known::Record(record) => record.ports.keys().cloned().collect(),
            Known::Left(left) => left.ports.keys().cloned().collect(),
            Known::NotLoaded | Known::Nothing => Vec::new(),
        };
        let has_record = matches!(self.known, Known::Record(_));
        let look = self.looked.filter(|_| has_record).map(|(at, pause)| at + pause);
        let end = self.empty_since.map(|since| since + linger);
        View { ports, netns: self.netns.clone(), due: look.into_iter().chain(end).min() }
    }
}
