//! Virtual time: it stands still while any task can go on, and then jumps to the next timer. An hour costs nothing,
//! and nothing depends on how fast the machine is. Needs everything to be in memory: outside of [`run`] it is the real time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tokio::time::Instant;

struct Clock {
    now: Instant,
    next_id: u64,
    timers: BTreeMap<(Instant, u64), Waker>,
    /// The test itself, and whether nothing can ever happen any more.
    test: Arc<Test>,
    stuck: bool,
}

/// Wakes the test. The runtime parks although the test can go on, and means to return at once: that is not the moment to jump.
struct Test {
    runtime: Mutex<Waker>,
    goes_on: AtomicBool,
}

impl Wake for Test {
    fn wake(self: Arc<Self>) {
        self.goes_on.store(true, Ordering::SeqCst);
        self.runtime.lock().unwrap().wake_by_ref();
    }
}

thread_local! {
    static CLOCK: RefCell<Option<Clock>> = const { RefCell::new(None) };
}

fn with_clock<R>(f: impl FnOnce(&mut Clock) -> R) -> Option<R> {
    CLOCK.with_borrow_mut(|clock| clock.as_mut().map(f))
}

/// Runs a test in virtual time.
///
/// # Panics
/// If the test waits for what cannot happen.
pub fn run(test: impl Future<Output = ()>) {
    let waker = Arc::new(Test { runtime: Mutex::new(Waker::noop().clone()), goes_on: AtomicBool::new(true) });
    let clock = Clock { now: Instant::now(), next_id: 0, timers: BTreeMap::new(), test: waker.clone(), stuck: false };
    CLOCK.set(Some(clock));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().on_thread_park(jump).build().unwrap();
    runtime.block_on(async {
        let mut test = pin!(test);
        poll_fn(|cx| {
            let stuck = with_clock(|clock| clock.stuck);
            assert_ne!(stuck, Some(true), "the test waits for what cannot happen");
            waker.runtime.lock().unwrap().clone_from(cx.waker());
            waker.goes_on.store(false, Ordering::SeqCst);
            test.as_mut().poll(&mut Context::from_waker(&Waker::from(waker.clone())))
        })
        .await;
    });
    // Timers of tasks that are left are dropped with the runtime.
    drop(runtime);
    CLOCK.set(None);
}

/// No task can go on: the next timer ends.
fn jump() {
    let woken = with_clock(|clock| {
        if clock.test.goes_on.load(Ordering::SeqCst) {
            return vec![];
        }
        let Some((&(next, _), _)) = clock.timers.first_key_value() else {
            clock.stuck = true;
            return vec![Waker::from(clock.test.clone())];
        };
        clock.now = clock.now.max(next);
        let later = clock.timers.split_off(&(next, u64::MAX));
        std::mem::replace(&mut clock.timers, later).into_values().collect()
    });
    woken.into_iter().flatten().for_each(Waker::wake);
}

/// The time now.
pub fn now() -> Instant {
    with_clock(|clock| clock.now).unwrap_or_else(Instant::now)
}

/// Ends at a moment.
pub struct Until {
    when: Instant,
    id: u64,
    real: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Future for Until {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(real) = &mut self.real {
            return real.as_mut().poll(cx);
        }
        let key = (self.when, self.id);
        let ended = with_clock(|clock| {
            if clock.now < key.0 {
                clock.timers.insert(key, cx.waker().clone());
            }
            clock.now >= key.0
        });
        if ended.unwrap_or(true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        with_clock(|clock| clock.timers.remove(&(self.when, self.id)));
    }
}

impl hyper::rt::Sleep for Until {}

/// Ends at `when`.
pub fn until(when: Instant) -> Until {
    let id = with_clock(|clock| {
        clock.next_id += 1;
        clock.next_id
    });
    let real = if id.is_none() { Some(Box::pin(tokio::time::sleep_until(when))) } else { None }; // the poll of real time
    Until { when, id: id.unwrap_or(0), real }
}

pub use until as sleep_until;

/// Ends after `time`.
pub fn pass(time: Duration) -> Until {
    until(now() + time)
}

pub use pass as sleep;

/// The error of a time-out.
#[derive(Debug)]
pub struct Elapsed;

/// `future`, unless it takes until `when`.
pub async fn timeout_at<F: Future>(when: Instant, future: F) -> Result<F::Output, Elapsed> {
    let (mut future, mut end) = (pin!(future), pin!(until(when)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => end.as_mut().poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}

/// `future`, unless it takes `time`.
pub async fn timeout<F: Future>(time: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(now() + time, future).await
}

/// The same for hyper.
pub fn timer() -> Timer {
    Timer
}

/// Virtual time for hyper.
pub struct Timer;

impl hyper::rt::Timer for Timer {
    // Hyper's name for the polled future.
    fn sleep(&self, time: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(pass(time))
    }

    // The same, to be polled until a moment.
    fn sleep_until(&self, when: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(until(when.into()))
    }

    fn now(&self) -> std::time::Instant {
        now().into_std()
    }
}
