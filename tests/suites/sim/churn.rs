//! Objects that come and go leave nothing: everything that grows is bounded.

use std::time::{Duration, Instant};

use evroc_testkit::{HostSize, Platform};

use super::all_is_well;

/// For so many minutes, in a process that does nothing else, instead of for a few rounds: `cargo xtask soak` sets it.
const MINUTES: &str = "EVROC_CHURN_MINUTES";
/// Rounds before the first measurement: caches fill, pools open their connections.
const WARM_UP: usize = 2;
/// The same for a long run: the store keeps five minutes of history, so that its files have their size after twice that time.
const LONG_WARM_UP: Duration = Duration::from_secs(15 * 60);
/// Rounds of `make test`.
const ROUNDS: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_and_goes_leaves_nothing() {
    let minutes: Option<u64> = std::env::var(MINUTES).ok().map(|text| text.parse().expect("a number of minutes"));
    let platform = Platform::builder()
        .host("host-1", "a", HostSize::default())
        .host("host-2", "b", HostSize::default())
        .start()
        .await;
    let (since, mut warm_up) = (Instant::now(), 0);
    while warm_up < WARM_UP || (minutes.is_some() && since.elapsed() < LONG_WARM_UP) {
        platform.come_and_go(&format!("warm-{warm_up}")).await;
        warm_up += 1;
    }
    let before = platform.sizes().await;
    let (since, mut rounds) = (Instant::now(), 0);
    let is_over = |rounds: usize| match minutes {
        Some(minutes) => since.elapsed() >= Duration::from_secs(60 * minutes),
        None => rounds >= ROUNDS,
    };
    while !is_over(rounds) {
        platform.come_and_go(&format!("round-{rounds}")).await;
        rounds += 1;
    }
    let after = platform.sizes().await;
    if minutes.is_some() {
        println!("before: {before:#?}\nafter {rounds} rounds in {:.0} s: {after:#?}", since.elapsed().as_secs_f64());
    }
    assert_eq!(after.grown_since(&before, minutes.is_some()), Vec::<String>::new(), "after {rounds} rounds");
    all_is_well(&platform).await;
}
