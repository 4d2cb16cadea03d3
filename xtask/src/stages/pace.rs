//! Time that counts against a budget: wall-clock time divided by how slow the machine is at that moment.
//!
//! A budget is for finding a test that hangs, not for judging the machine. On a machine that is three times slower, or whose cores are
//! busy with other work, a stage takes three times as long and gets three times as long. A thread repeats a small, fixed piece of work
//! and compares its duration with [`REFERENCE`]; a stage that waits for something that never comes uses no processor, so the work is
//! quick and the budget runs out in real time.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Rounds of the fixed work; [`REFERENCE`] belongs to it.
const ROUNDS: u64 = 5_000_000;
/// How long the fixed work takes on one idle core of the machine that the budgets were measured on.
/// Too low makes every machine seem slow, so that a hang is found late; too high makes budgets run out on slow machines.
const REFERENCE: Duration = Duration::from_millis(40);
/// Between two measurements. Shorter costs the tests processor time; longer misses a change of the load.
const PAUSE: Duration = Duration::from_secs(3);
/// The slowest that a machine is taken for, so that a run ends on any machine.
const SLOWEST: f64 = 8.0;

/// The budget clock of a run; it measures until it is dropped.
pub struct Pace {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    clock: Mutex<Option<Clock>>,
    stopping: AtomicBool,
    wake: Condvar,
}

/// Wall-clock time, and the part of it that counts.
#[derive(Debug, Clone, Copy)]
struct Clock {
    /// When `counted` was last brought up to date.
    at: Instant,
    counted: Duration,
    slowdown: f64,
}

impl Clock {
    fn start(now: Instant, slowdown: f64) -> Clock {
        Clock { at: now, counted: Duration::ZERO, slowdown }
    }

    fn counted(&self, now: Instant) -> Duration {
        self.counted + now.saturating_duration_since(self.at).div_f64(self.slowdown)
    }

    fn set(&mut self, now: Instant, slowdown: f64) {
        *self = Clock { at: now, counted: self.counted(now), slowdown };
    }
}

/// How many times slower than the reference the machine is when the fixed work took this long.
fn slowdown(took: Duration) -> f64 {
    (took.as_secs_f64() / REFERENCE.as_secs_f64()).clamp(1.0, SLOWEST)
}

fn fixed_work() -> Duration {
    let started = Instant::now();
    let mut value = 1u64;
    for round in 0..ROUNDS {
        value = black_box(value.rotate_left(5) ^ round);
    }
    black_box(value);
    started.elapsed()
}

impl Pace {
    /// Starts the clock.
    pub fn start() -> Pace {
        let shared = Arc::new(Shared::default());
        *lock(&shared.clock) = Some(Clock::start(Instant::now(), slowdown(fixed_work())));
        let measured = Arc::clone(&shared);
        let thread = std::thread::spawn(move || measured.measure());
        Pace { shared, thread: Some(thread) }
    }

    /// How much time has counted since the start.
    pub fn counted(&self) -> Duration {
        lock(&self.shared.clock).as_ref().map_or(Duration::ZERO, |clock| clock.counted(Instant::now()))
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            // It only measures: there is nothing to learn from a panic of it.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn measure(&self) {
        loop {
            let guard = lock(&self.clock);
            let waited = self.wake.wait_timeout(guard, PAUSE);
            drop(waited);
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            let slowdown = slowdown(fixed_work());
            if let Some(clock) = lock(&self.clock).as_mut() {
                clock.set(Instant::now(), slowdown);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads that keep processors busy until they are dropped: how tests behave on a loaded machine.
pub struct Burners {
    stop: Arc<AtomicBool>,
}

impl Burners {
    /// Starts this many.
    pub fn start(count: usize) -> Burners {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..count {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    fixed_work();
                }
            });
        }
        Burners { stop }
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn time_counts_less_while_the_machine_is_slow() {
        let start = Instant::now();
        let mut clock = Clock::start(start, 1.0);
        assert_eq!(clock.counted(start + 10 * SECOND), 10 * SECOND);
        clock.set(start + 10 * SECOND, 4.0);
        assert_eq!(clock.counted(start + 18 * SECOND), 12 * SECOND);
        clock.set(start + 18 * SECOND, 1.0);
        assert_eq!(clock.counted(start + 20 * SECOND), 14 * SECOND);
    }

    #[test]
    fn a_machine_is_never_faster_than_the_reference_nor_slower_than_the_bound() {
        assert_eq!(slowdown(REFERENCE / 2), 1.0);
        assert_eq!(slowdown(REFERENCE * 3), 3.0);
        assert_eq!(slowdown(REFERENCE * 1000), SLOWEST);
    }

    #[test]
    fn the_clock_runs() {
        let pace = Pace::start();
        let before = pace.counted();
        while pace.counted() == before {
            std::thread::yield_now();
        }
    }
}
