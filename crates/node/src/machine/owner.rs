//! The owner of a machine: every change of a machine goes through its mailbox (see [`crate::owner`]).
//!
//! ```text
//!  agent, drain, streams ──ask──▶ mailbox ──▶ turn: look ─▶ judge(state, request) ─┬─ Accept ─────▶ the driver does it
//!          │                                                                       ├─ AlreadyDone ▶ answered with what is so
//!          └──look── (no turn) ──▶ observed and what is under way                     └─ Refuse ─────▶ AskError::Refused
//! ```

use std::sync::Arc;
use std::time::Duration;

use super::devices::{Change, WantedDisk, diff};
use super::error::MachineError;
use super::guests::{Guests, ObservedMachine, Run};
use super::request::{Disposition, MachineState, Request, arrive, judge};
use super::{MachineConfig, Nic, Stopped};
use crate::drain_flag::DrainFlag;
use crate::owner::{Arrival, AskError, Owners, Turn, Workload};

/// A machine, as its owner knows it.
pub struct Owned {
    uid: String,
    guests: Arc<dyn Guests>,
    draining: DrainFlag,
}

/// A request to a machine's owner, with all that it takes.
#[derive(Debug)]
pub enum Order {
    /// See [`Request::Start`].
    Start(Box<MachineConfig>, Option<Nic>),
    /// See [`Request::Stop`] and, without a grace, [`Request::ForceStop`].
    Stop(Duration),
    /// See [`Request::EndOrphan`].
    EndOrphan,
    /// See [`Request::Remove`].
    Remove,
    /// See [`Request::ChangeDevices`]: the guest shall have these.
    Devices(Vec<WantedDisk>),
    /// See [`Request::Resume`].
    Resume,
    /// See [`Request::Pause`].
    Pause,
    /// See [`Request::Reset`].
    Reset,
}

/// The result of a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The machine runs.
    Runs(Run),
    /// It does not run any more; how it was stopped, if it had ever run.
    Stopped(Option<Stopped>),
    /// These devices were changed.
    Changed(Vec<Change>),
    /// Done, or nothing to do.
    Done,
}

/// The reason why a machine's owner did not carry out a request.
pub type OrderError = AskError<MachineError>;

impl Workload for Owned {
    type Request = Order;
    type Kind = Request;
    type Answer = Answer;
    type Error = MachineError;

    fn kind(order: &Order) -> Request {
        match order {
            Order::Start(..) => Request::Start,
            Order::Stop(Duration::ZERO) => Request::ForceStop,
            Order::Stop(_) => Request::Stop,
            Order::EndOrphan => Request::EndOrphan,
            Order::Remove => Request::Remove,
            Order::Devices(..) => Request::ChangeDevices,
            Order::Resume => Request::Resume,
            Order::Pause => Request::Pause,
            Order::Reset => Request::Reset,
        }
    }

    fn arrive(ahead: &[Request], request: Request) -> Arrival {
        arrive(ahead, request)
    }

    async fn turn(self: Arc<Self>, order: Order) -> Result<Turn<Answer>, MachineError> {
        let request = Self::kind(&order);
        // Looked at here and not before: a drain that has begun stops every machine whose start has passed this point.
        if request == Request::Start && self.draining.is_set() {
            return Ok(Turn::Refused("the host is being stopped"));
        }
        let observed = self.guests.observe(&self.uid).await;
        // A removal is carried out although the record cannot be read.
        let observed = match observed {
            Err(error) if !matches!(request, Request::Remove | Request::ForceStop) => return Err(error),
            observed => observed.ok(),
        };
        let state = observed.as_ref().map_or(MachineState::Running, state_of);
        match judge(state, request) {
            Disposition::Accept => self.act(order).await,
            Disposition::AlreadyDone => Ok(already(request, observed)),
            Disposition::Later(why) | Disposition::Refuse(why) => Ok(Turn::Refused(why)),
        }
    }
}

fn state_of(observed: &ObservedMachine) -> MachineState {
    match observed {
        ObservedMachine::Absent => MachineState::Absent,
        ObservedMachine::Running(_) => MachineState::Running,
        ObservedMachine::Orphaned(_) => MachineState::Orphaned,
        ObservedMachine::Ended(_) => MachineState::Ended,
    }
}

fn already(request: Request, observed: Option<ObservedMachine>) -> Turn<Answer> {
    match (request, observed) {
        (Request::Remove, _) => Turn::Removed(Answer::Done),
        (_, Some(ObservedMachine::Running(run))) => Turn::Done(Answer::Runs(run)),
        (_, Some(ObservedMachine::Ended(exit))) => {
            Turn::Done(Answer::Stopped(Some(Stopped { manner: super::StopManner::AlreadyEnded, exit })))
        }
        _ => Turn::Done(Answer::Stopped(None)),
    }
}

impl Owned {
    async fn act(&self, order: Order) -> Result<Turn<Answer>, MachineError> {
        let (uid, guests) = (&self.uid, &self.guests);
        Ok(match order {
            Order::Start(config, nic) => Turn::Done(Answer::Runs(guests.start(&config, nic).await?)),
            Order::Stop(grace) => Turn::Done(Answer::Stopped(guests.stop(uid, grace).await?)),
            Order::EndOrphan => {
                guests.end_orphan(uid).await?;
                Turn::Done(Answer::Done)
            }
            Order::Remove => {
                guests.remove(uid).await?;
                Turn::Removed(Answer::Stopped(None))
            }
            Order::Devices(wanted) => {
                let changes = diff(&wanted, &guests.disks(uid).await?);
                for change in &changes {
                    guests.change_disk(uid, change).await?;
                }
                Turn::Done(Answer::Changed(changes))
            }
            Order::Resume => {
                guests.resume(uid).await?;
                Turn::Done(Answer::Done)
            }
            Order::Pause => {
                guests.pause(uid).await?;
                Turn::Done(Answer::Done)
            }
            Order::Reset => {
                guests.reset(uid).await?;
                Turn::Done(Answer::Done)
            }
        })
    }
}

/// The machines of a host, each with its owner. Cheap to clone.
#[derive(Clone)]
pub struct OwnedMachines {
    owners: Owners<Owned>,
    guests: Arc<dyn Guests>,
    draining: DrainFlag,
}

impl OwnedMachines {
    /// Owners over a driver. Nothing is started once `draining` is set.
    pub fn new(guests: Arc<dyn Guests>, draining: DrainFlag) -> Self {
        let (own, flag) = (guests.clone(), draining.clone());
        let owners = Owners::new(move |uid| Owned { uid: uid.to_owned(), guests: own.clone(), draining: flag.clone() });
        Self { owners, guests, draining }
    }

    /// The driver, for what only looks.
    pub fn guests(&self) -> &Arc<dyn Guests> {
        &self.guests
    }

    /// Sends a request to the owner of a machine.
    pub async fn ask(&self, uid: &str, order: Order) -> Result<Answer, OrderError> {
        self.owners.ask(uid, order).await
    }

    /// Returns the request under way with a machine.
    pub fn doing(&self, uid: &str) -> Option<Request> {
        self.owners.doing(uid)
    }

    /// Returns the state of a machine, taking into account the request under way.
    pub async fn state(&self, uid: &str) -> Result<MachineState, MachineError> {
        match self.doing(uid) {
            Some(Request::Start) => Ok(MachineState::Starting),
            Some(Request::Stop | Request::ForceStop | Request::Remove | Request::EndOrphan) => {
                Ok(MachineState::Stopping)
            }
            _ => self.guests.observe(uid).await.map(|observed| state_of(&observed)),
        }
    }

    /// Whether a request that only reads is legal now.
    pub async fn may(&self, uid: &str, request: Request) -> Result<(), OrderError> {
        let state = self.state(uid).await.map_err(|error| AskError::Failed(Arc::new(error)))?;
        match judge(state, request) {
            Disposition::Accept | Disposition::AlreadyDone => Ok(()),
            Disposition::Later(why) | Disposition::Refuse(why) => Err(AskError::Refused(why)),
        }
    }

    /// Whether the host is being stopped.
    pub fn is_draining(&self) -> bool {
        self.draining.is_set()
    }

    /// Uids of all machines that are on this host or about to be.
    pub async fn uids(&self) -> Result<std::collections::BTreeSet<String>, MachineError> {
        let mut uids = self.guests.list().await?;
        uids.extend(self.owners.uids());
        Ok(uids)
    }
}
