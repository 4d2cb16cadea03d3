//! The owner of a machine: whatever changes a machine goes through its mailbox (see [`crate::owner`]).
//!
//! ```text
//!  agent, drain, streams ──ask──▶ mailbox ──▶ turn: look ─▶ judge(state, request) ─┬─ Accept ─────▶ the driver does it
//!          │                                                                       ├─ AlreadyDone ▶ answered with what is so
//!          └──look── (no turn) ──▶ sight and what is under way                     └─ Refuse ─────▶ AskError::Refused
//! ```

use std::sync::Arc;
use std::time::Duration;

use super::devices::{Change, WantedDisk, diff};
use super::error::MachineError;
use super::guests::{Guests, Run, Sight};
use super::request::{Request, State, Verdict, arrive, judge};
use super::{MachineConfig, Nic, Stopped};
use crate::owner::{Arrival, AskError, Draining, Owners, Turn, Workload};

/// A machine, as its owner knows it.
pub struct Owned {
    uid: String,
    guests: Arc<dyn Guests>,
    draining: Draining,
}

/// What a machine's owner may be asked, with all that it takes.
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
}

/// What the owner did.
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

/// Why a machine's owner did not do something.
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
        let sight = self.guests.look(&self.uid).await;
        // What is to be removed is removed although its record cannot be read.
        let sight = match sight {
            Err(error) if !matches!(request, Request::Remove | Request::ForceStop) => return Err(error),
            sight => sight.ok(),
        };
        let state = sight.as_ref().map_or(State::Running, state_of);
        match judge(state, request) {
            Verdict::Accept => self.act(order).await,
            Verdict::AlreadyDone => Ok(already(request, sight)),
            Verdict::Later(why) | Verdict::Refuse(why) => Ok(Turn::Refused(why)),
        }
    }
}

fn state_of(sight: &Sight) -> State {
    match sight {
        Sight::Absent => State::Absent,
        Sight::Running(_) => State::Running,
        Sight::Orphaned(_) => State::Orphaned,
        Sight::Ended(_) => State::Ended,
    }
}

fn already(request: Request, sight: Option<Sight>) -> Turn<Answer> {
    match (request, sight) {
        (Request::Remove, _) => Turn::Removed(Answer::Done),
        (_, Some(Sight::Running(run))) => Turn::Done(Answer::Runs(run)),
        (_, Some(Sight::Ended(exit))) => {
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
        })
    }
}

/// The machines of a host, each with its owner. Cheap to clone.
#[derive(Clone)]
pub struct OwnedMachines {
    owners: Owners<Owned>,
    guests: Arc<dyn Guests>,
    draining: Draining,
}

impl OwnedMachines {
    /// Owners over a driver. Nothing is started once `draining` is set.
    pub fn new(guests: Arc<dyn Guests>, draining: Draining) -> Self {
        let (own, flag) = (guests.clone(), draining.clone());
        let owners = Owners::new(move |uid| Owned { uid: uid.to_owned(), guests: own.clone(), draining: flag.clone() });
        Self { owners, guests, draining }
    }

    /// The driver, for what only looks.
    pub fn guests(&self) -> &Arc<dyn Guests> {
        &self.guests
    }

    /// Asks the owner of a machine.
    pub async fn ask(&self, uid: &str, order: Order) -> Result<Answer, OrderError> {
        self.owners.ask(uid, order).await
    }

    /// What is under way with a machine.
    pub fn doing(&self, uid: &str) -> Option<Request> {
        self.owners.doing(uid)
    }

    /// Where a machine is, what is under way taken into account.
    pub async fn state(&self, uid: &str) -> Result<State, MachineError> {
        match self.doing(uid) {
            Some(Request::Start) => Ok(State::Starting),
            Some(Request::Stop | Request::ForceStop | Request::Remove | Request::EndOrphan) => Ok(State::Stopping),
            _ => self.guests.look(uid).await.map(|sight| state_of(&sight)),
        }
    }

    /// Whether a request that only reads is legal now.
    pub async fn may(&self, uid: &str, request: Request) -> Result<(), OrderError> {
        let state = self.state(uid).await.map_err(|error| AskError::Failed(Arc::new(error)))?;
        match judge(state, request) {
            Verdict::Accept | Verdict::AlreadyDone => Ok(()),
            Verdict::Later(why) | Verdict::Refuse(why) => Err(AskError::Refused(why)),
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
