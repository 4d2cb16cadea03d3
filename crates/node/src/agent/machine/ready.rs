//! Whether a guest's system is up, as far as can be seen from outside: its ssh server greets.
//!
//! ```text
//!            greets                    silent twice in a row
//!  Booting ─────────▶ Answers ───────────────────────────────▶ Silent
//!     ▲                  │  ▲                                    │
//!     └──── reboots ─────┘  └───────────── greets ───────────────┘
//! ```
//! One [`Watched`] belongs to one run: the task of a former run never affects a later one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use evroc_api::conditions::Verdict;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::machine::guests::{GuestChange, RunId};
use crate::net::network::Network;

/// The port that a guest with a system of its own answers on.
const SSH: u16 = 22;
/// How long a greeting may take. A guest under emulation that is busy booting takes seconds to accept and to greet; longer delays
/// the news of a server that died.
const GREETING: Duration = Duration::from_secs(10);
/// The most that a server may write before its greeting (RFC 4253, section 4.2), in bytes.
const PREAMBLE_BYTES: usize = 8 << 10;
/// The pause between two tries while the guest boots: users wait for it.
const SOON: Duration = Duration::from_millis(300);
/// The same after [`SOON_TRIES`]: a guest without an ssh server is not probed three times a second for ever.
const LATER: Duration = Duration::from_secs(5);
/// Five minutes of [`SOON`], which every boot under emulation fits into.
const SOON_TRIES: u32 = 1000;
/// Between two tries while the server answers. Each leaves a line in the guest's log; longer shows a dead server later.
const NOW_AND_THEN: Duration = Duration::from_secs(15);
/// After a failure of a server that had answered, to find out whether it was a single one.
const CHECK: Duration = Duration::from_secs(1);
/// Failures in a row that make a server silent. One happens when the server is restarted or its queue is full.
const FAILURES: u32 = 2;

/// The knowledge about the guest's ssh server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    Booting,
    Answers,
    Silent,
}

/// The knowledge about a guest's system. Pure.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    greeting: Greeting,
    has_rebooted: bool,
    failures: u32,
    tries: u32,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { greeting: Greeting::Booting, has_rebooted: false, failures: 0, tries: 0 }
    }
}

impl Readiness {
    /// The guest reboots.
    pub fn reset(&mut self) {
        *self = Self { has_rebooted: true, ..Self::default() };
    }

    /// Records whether the server greeted; returns whether this changes the report.
    pub fn tried(&mut self, greeted: bool) -> bool {
        self.tries = self.tries.saturating_add(1);
        let before = self.greeting;
        match (greeted, before) {
            (true, _) => *self = Self { greeting: Greeting::Answers, ..*self },
            (false, Greeting::Answers) if self.failures + 1 >= FAILURES => self.greeting = Greeting::Silent,
            (false, _) => {}
        }
        self.failures = if greeted { 0 } else { self.failures.saturating_add(1) };
        before != self.greeting
    }

    /// How long to wait before the next try.
    pub fn pause(&self) -> Duration {
        match self.greeting {
            Greeting::Answers if self.failures == 0 => NOW_AND_THEN,
            Greeting::Answers => CHECK,
            _ if self.tries < SOON_TRIES => SOON,
            _ => LATER,
        }
    }

    /// The condition.
    pub fn verdict(&self) -> Verdict {
        match self.greeting {
            Greeting::Answers => Verdict::yes("SshAnswers", "the guest's ssh server answers"),
            Greeting::Silent => Verdict::no("SshSilent", "the guest's ssh server does not answer any more"),
            Greeting::Booting if self.has_rebooted => {
                Verdict::no("Rebooting", "the guest has rebooted; its ssh server does not answer yet")
            }
            Greeting::Booting => Verdict::no("Booting", "the guest's ssh server does not answer yet"),
        }
    }
}

/// The watch over one run. Dropping it ends the watch.
pub struct Watched {
    /// The run.
    pub run: RunId,
    readiness: Arc<Mutex<Readiness>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watched {
    /// Watches a run: records its events and probes its ssh server; wakes the reconciler when the report changes.
    pub fn start<P: Future<Output = bool> + Send + 'static>(
        run: RunId,
        changes: BoxStream<'static, GuestChange>,
        greets: impl Fn() -> P + Send + Sync + 'static,
        ring: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(run, changes, greets, ring, tokio::time::sleep)
    }

    /// The same with another way to let time pass.
    fn start_with<P: Future<Output = bool> + Send + 'static, S: Future<Output = ()> + Send + 'static>(
        run: RunId,
        changes: BoxStream<'static, GuestChange>,
        greets: impl Fn() -> P + Send + Sync + 'static,
        ring: impl Fn() + Send + Sync + 'static,
        sleep: impl Fn(Duration) -> S + Send + Sync + 'static,
    ) -> Self {
        let readiness = Arc::new(Mutex::new(Readiness::default()));
        let task = tokio::spawn(watch(readiness.clone(), changes, greets, ring, sleep));
        Self { run, readiness, task }
    }

    /// Returns the present knowledge.
    pub fn readiness(&self) -> Readiness {
        *self.readiness.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn watch<P: Future<Output = bool> + Send, S: Future<Output = ()> + Send>(
    readiness: Arc<Mutex<Readiness>>,
    mut changes: BoxStream<'static, GuestChange>,
    greets: impl Fn() -> P + Send + Sync + 'static,
    ring: impl Fn() + Send + Sync + 'static,
    sleep: impl Fn(Duration) -> S + Send + Sync + 'static,
) {
    let lock = || readiness.lock().unwrap_or_else(PoisonError::into_inner);
    let mut pause = Duration::ZERO;
    loop {
        let attempt = async {
            sleep(pause).await;
            greets().await
        };
        // A try that is under way when the guest reboots may still see the old server: it is dropped.
        tokio::select! {
            biased;
            change = changes.next() => match change {
                Some(GuestChange::Reset) => {
                    lock().reset();
                    ring();
                    pause = SOON;
                }
                Some(GuestChange::StateChanged) => ring(),
                Some(GuestChange::Ended) | None => {
                    ring();
                    return;
                }
            },
            greeted = attempt => {
                let (is_news, next) = {
                    let mut readiness = lock();
                    (readiness.tried(greeted), readiness.pause())
                };
                pause = next;
                if is_news {
                    ring();
                }
            }
        }
    }
}

/// Whether the ssh server of a guest greets. That something accepts the connection is not enough: a full queue of a stopped server
/// does.
pub async fn ssh_greets(network: &dyn Network, vpc: &str, address: std::net::Ipv4Addr) -> bool {
    let greeting = async {
        match network.connect(vpc, SocketAddr::from((address, SSH))).await {
            Ok(stream) => is_greeting(stream).await,
            Err(_) => false,
        }
    };
    tokio::time::timeout(GREETING, greeting).await.unwrap_or(false)
}

/// Whether what comes has a line that begins with `SSH-`, perhaps after others.
async fn is_greeting(stream: impl AsyncRead + Unpin) -> bool {
    let mut stream = stream.take(PREAMBLE_BYTES as u64);
    let mut seen = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut seen).await {
        if seen.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"SSH-")) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn one_failure_is_no_silence_and_a_reboot_begins_anew() {
        let mut readiness = Readiness::default();
        let mut reasons = vec![readiness.verdict().reason];
        for step in [Some(false), Some(true), Some(false), Some(true), Some(false), Some(false), Some(true), None] {
            match step {
                Some(greeted) => {
                    readiness.tried(greeted);
                }
                None => readiness.reset(),
            }
            reasons.push(readiness.verdict().reason);
        }
        assert_eq!(
            reasons,
            [
                "Booting",
                "Booting",
                "SshAnswers",
                "SshAnswers",
                "SshAnswers",
                "SshAnswers",
                "SshSilent",
                "SshAnswers",
                "Rebooting"
            ]
        );
    }

    #[test]
    fn a_server_that_answers_is_probed_now_and_then_and_a_guest_without_one_ever_less() {
        let mut readiness = Readiness::default();
        assert_eq!(readiness.pause(), SOON);
        readiness.tried(true);
        assert_eq!(readiness.pause(), NOW_AND_THEN);
        readiness.tried(false);
        assert_eq!(readiness.pause(), CHECK);
        readiness.reset();
        for _ in 0..SOON_TRIES {
            readiness.tried(false);
        }
        assert_eq!(readiness.pause(), LATER);
    }

    #[tokio::test]
    async fn only_a_greeting_counts() {
        for (bytes, expected) in [
            (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], true),
            (b"Welcome\r\nSSH-2.0-dropbear\r\n", true),
            (b"HTTP/1.1 400 Bad Request\r\n", false),
            (b"", false),
            (b"not SSH-2.0\r\n", false),
        ] {
            assert_eq!(is_greeting(bytes).await, expected, "{:?}", String::from_utf8_lossy(bytes));
        }
        assert!(!is_greeting(tokio::io::repeat(b'a')).await, "endless output is given up");
    }

    #[tokio::test]
    async fn a_watch_takes_in_reboots_silence_and_the_end() {
        let (changes, received) = mpsc::unbounded_channel();
        let received = stream::unfold(received, |mut r| async move { r.recv().await.map(|change| (change, r)) });
        let greets = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let (bell, mut rung) = mpsc::unbounded_channel();
        let probes = greets.clone();
        let watched = Watched::start_with(
            RunId(1),
            received.boxed(),
            move || std::future::ready(probes.load(std::sync::atomic::Ordering::SeqCst)),
            move || bell.send(()).unwrap(),
            |_| tokio::task::yield_now(),
        );
        let reason = || watched.readiness().verdict().reason;
        rung.recv().await.unwrap();
        assert_eq!(reason(), "SshAnswers");
        greets.store(false, std::sync::atomic::Ordering::SeqCst);
        rung.recv().await.unwrap();
        assert_eq!(reason(), "SshSilent");
        greets.store(true, std::sync::atomic::Ordering::SeqCst);
        rung.recv().await.unwrap();
        assert_eq!(reason(), "SshAnswers");
        greets.store(false, std::sync::atomic::Ordering::SeqCst);
        changes.send(GuestChange::Reset).unwrap();
        rung.recv().await.unwrap();
        assert_eq!(reason(), "Rebooting");
        changes.send(GuestChange::Ended).unwrap();
        rung.recv().await.unwrap();
        assert!(rung.recv().await.is_none(), "the watch has ended");
    }
}
