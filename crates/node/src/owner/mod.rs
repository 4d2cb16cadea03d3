//! One task per workload, with a mailbox: every request about a machine or container goes to its owner.
//!
//! ```text
//!  ask(request) ──▶ arrive(ahead, kind) ─┬─ Join ────▶ shares the answer of a request of the same kind that is ahead
//!                                        ├─ Refuse ──▶ AskError::Refused
//!                                        ├─ Preempt ─▶ the turn under way is dropped; those who wait for it get this one's answer
//!                                        └─ Queue ───▶ turn(request), one at a time: look, judge, act ──▶ answer
//! ```
//!
//! Guarantees:
//! - Turns of one workload never overlap; turns of two workloads never wait for each other.
//! - A request that was accepted is carried out although its caller may not wait for the answer any more.
//! - The task ends, and its entry goes, after a turn that says that nothing of the workload is left.
//!
//! A pure observation takes no turn and is not sent here: it is possible at any time, and [`Owner::doing`] returns the request under
//! way.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

/// The logic of an owner, and how its requests are carried out.
pub trait Workload: Send + Sync + 'static {
    /// The requests.
    type Request: Send + 'static;
    /// Requests of one kind have the same effect, so that one answer serves all that wait.
    type Kind: Copy + Debug + PartialEq + Send + Sync + 'static;
    /// The answer to a request that was carried out.
    type Answer: Clone + Send + 'static;
    /// The reason why it was not.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The kind of a request.
    fn kind(request: &Self::Request) -> Self::Kind;

    /// Decides about a request, given those ahead of it: the one under way first, then those that wait. Pure.
    fn arrive(ahead: &[Self::Kind], request: Self::Kind) -> Arrival;

    /// Looks, decides whether the request is legal now, and carries it out. The future is dropped if another request preempts it.
    fn turn(
        self: Arc<Self>,
        request: Self::Request,
    ) -> impl Future<Output = Result<Turn<Self::Answer>, Self::Error>> + Send;
}

/// The treatment of a request that has come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Wait for its turn.
    Queue,
    /// Share the answer of the last request of the same kind that is ahead.
    Join,
    /// Take the turn of the request under way at once; those who wait for that one share this one's answer.
    Preempt,
    /// It will never be legal, because of a request ahead; the text names the reason.
    Refuse(&'static str),
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn<A> {
    /// It was carried out, or was so already.
    Done(A),
    /// The same, and nothing of the workload is left.
    Removed(A),
    /// It is not legal in the state that was found; the text says why.
    Refused(&'static str),
}

/// The reason why an owner did not carry out a request.
#[derive(Debug, Error)]
pub enum AskError<E: std::error::Error + 'static> {
    /// The request is not legal now.
    #[error("{0}")]
    Refused(&'static str),
    /// It was tried.
    #[error(transparent)]
    Failed(Arc<E>),
    /// The owner ended before it answered: the process is ending, or a turn panicked.
    #[error("the owner of the workload ended before it answered")]
    Lost,
}

impl<E: std::error::Error> Clone for AskError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Refused(why) => Self::Refused(why),
            Self::Failed(error) => Self::Failed(error.clone()),
            Self::Lost => Self::Lost,
        }
    }
}

/// The answer as it is shared by all that wait for it.
pub type AskResult<W> = Result<<W as Workload>::Answer, AskError<<W as Workload>::Error>>;

struct Letter<W: Workload> {
    request: W::Request,
    reply: oneshot::Sender<AskResult<W>>,
}

struct Entry<W: Workload> {
    mailbox: mpsc::UnboundedSender<Letter<W>>,
    doing: watch::Receiver<Option<W::Kind>>,
}

type Entries<W> = Arc<Mutex<HashMap<String, Entry<W>>>>;

/// The owners of all workloads of one sort on this host, by uid.
pub struct Owners<W: Workload> {
    make: Arc<dyn Fn(&str) -> W + Send + Sync>,
    entries: Entries<W>,
}

impl<W: Workload> Clone for Owners<W> {
    fn clone(&self) -> Self {
        Self { make: self.make.clone(), entries: self.entries.clone() }
    }
}

impl<W: Workload> Owners<W> {
    /// Owners of the workloads that `make` makes out of uids.
    pub fn new(make: impl Fn(&str) -> W + Send + Sync + 'static) -> Self {
        Self { make: Arc::new(make), entries: Arc::default() }
    }

    /// Sends a request to the owner of `uid` and waits for the answer.
    pub async fn ask(&self, uid: &str, request: W::Request) -> AskResult<W> {
        let (reply, answer) = oneshot::channel();
        self.send(uid, Letter { request, reply });
        answer.await.unwrap_or(Err(AskError::Lost))
    }

    /// Returns the request that the owner of `uid` carries out.
    pub fn doing(&self, uid: &str) -> Option<W::Kind> {
        lock(&self.entries).get(uid).and_then(|entry| *entry.doing.borrow())
    }

    /// The uids of the workloads that have an owner at the moment.
    pub fn uids(&self) -> Vec<String> {
        lock(&self.entries).keys().cloned().collect()
    }

    /// How many workloads have an owner at the moment.
    pub fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    /// Whether no workload has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sent under the lock, so that an owner that is about to end sees the letter or is replaced.
    fn send(&self, uid: &str, letter: Letter<W>) {
        let mut entries = lock(&self.entries);
        let unsent = match entries.get(uid) {
            Some(entry) => entry.mailbox.send(letter).err().map(|error| error.0),
            None => Some(letter),
        };
        let Some(letter) = unsent else { return };
        let (mailbox, letters) = mpsc::unbounded_channel();
        let (doing, seen) = watch::channel(None);
        let task = Task {
            uid: uid.to_owned(),
            workload: Arc::new((self.make)(uid)),
            entries: self.entries.clone(),
            letters,
            doing,
            queue: VecDeque::new(),
            current: None,
        };
        // The receiver is in `task`, which has not begun: this cannot fail.
        let _ = mailbox.send(letter);
        entries.insert(uid.to_owned(), Entry { mailbox, doing: seen });
        tokio::spawn(task.run());
    }
}

fn lock<W: Workload>(entries: &Entries<W>) -> MutexGuard<'_, HashMap<String, Entry<W>>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Waiting<W: Workload> {
    kind: W::Kind,
    request: W::Request,
    replies: Vec<oneshot::Sender<AskResult<W>>>,
}

struct Current<W: Workload> {
    kind: W::Kind,
    replies: Vec<oneshot::Sender<AskResult<W>>>,
    turn: BoxFuture<'static, Result<Turn<W::Answer>, W::Error>>,
}

struct Task<W: Workload> {
    uid: String,
    workload: Arc<W>,
    entries: Entries<W>,
    letters: mpsc::UnboundedReceiver<Letter<W>>,
    doing: watch::Sender<Option<W::Kind>>,
    queue: VecDeque<Waiting<W>>,
    current: Option<Current<W>>,
}

impl<W: Workload> Task<W> {
    async fn run(mut self) {
        loop {
            if self.current.is_none()
                && let Some(next) = self.queue.pop_front()
            {
                self.begin(next);
            }
            let turn = async {
                match &mut self.current {
                    Some(current) => (&mut current.turn).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                letter = self.letters.recv() => match letter {
                    Some(letter) => self.take_in(letter),
                    // No new request can come; the accepted ones are still carried out.
                    None if self.current.is_none() => return,
                    None => {
                        let outcome = match &mut self.current {
                            Some(current) => (&mut current.turn).await,
                            None => return,
                        };
                        self.finish(outcome);
                    }
                },
                outcome = turn => if self.finish(outcome) && self.leave() {
                    return;
                },
            }
        }
    }

    fn begin(&mut self, next: Waiting<W>) {
        let Waiting { kind, request, replies } = next;
        self.doing.send_replace(Some(kind));
        let turn = self.workload.clone().turn(request).boxed();
        self.current = Some(Current { kind, replies, turn });
    }

    fn take_in(&mut self, letter: Letter<W>) {
        let Letter { request, reply } = letter;
        let kind = W::kind(&request);
        let ahead: Vec<W::Kind> =
            self.current.iter().map(|current| current.kind).chain(self.queue.iter().map(|w| w.kind)).collect();
        match W::arrive(&ahead, kind) {
            Arrival::Refuse(why) => {
                let _ = reply.send(Err(AskError::Refused(why)));
            }
            Arrival::Join => match self.last_of(kind) {
                Some(replies) => replies.push(reply),
                None => self.queue.push_back(Waiting { kind, request, replies: vec![reply] }),
            },
            Arrival::Preempt => {
                let mut replies = self.current.take().map(|current| current.replies).unwrap_or_default();
                replies.push(reply);
                self.begin(Waiting { kind, request, replies });
            }
            Arrival::Queue => self.queue.push_back(Waiting { kind, request, replies: vec![reply] }),
        }
    }

    fn last_of(&mut self, kind: W::Kind) -> Option<&mut Vec<oneshot::Sender<AskResult<W>>>> {
        let waiting = self.queue.iter_mut().rev().find(|waiting| waiting.kind == kind).map(|w| &mut w.replies);
        waiting.or(self.current.as_mut().filter(|current| current.kind == kind).map(|current| &mut current.replies))
    }

    /// Answers everybody who waits; whether nothing of the workload is left.
    fn finish(&mut self, outcome: Result<Turn<W::Answer>, W::Error>) -> bool {
        self.doing.send_replace(None);
        let (answer, is_removed) = match outcome {
            Ok(Turn::Done(answer)) => (Ok(answer), false),
            Ok(Turn::Removed(answer)) => (Ok(answer), true),
            Ok(Turn::Refused(why)) => (Err(AskError::Refused(why)), false),
            Err(error) => (Err(AskError::Failed(Arc::new(error))), false),
        };
        for reply in self.current.take().map(|current| current.replies).unwrap_or_default() {
            // The caller may have stopped waiting.
            let _ = reply.send(answer.clone());
        }
        is_removed
    }

    /// Removes the entry unless a request came meanwhile.
    fn leave(&mut self) -> bool {
        let mut entries = lock(&self.entries);
        let is_idle = self.queue.is_empty() && self.letters.is_empty();
        if is_idle {
            entries.remove(&self.uid);
        }
        is_idle
    }
}

#[cfg(test)]
mod tests;
