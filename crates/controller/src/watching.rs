//! Controllers that come back soon after the API was restarted.

use std::fmt::Debug;
use std::time::Duration;

use kube::runtime::controller::Controller;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// First pause after a watch failed. Watches fail together when the API server is restarted, and each counts.
const FIRST: Duration = Duration::from_millis(50);
/// Longest pause: how late a controller may notice that the API server is back. The server is the platform's own, and few watch it this
/// way; the usual 30 s are for thousands.
const LONGEST: Duration = Duration::from_secs(1);

/// Pauses between tries to watch.
#[derive(Debug)]
struct Pauses(Duration);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        Some(pause)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0 = FIRST;
    }
}

/// A controller of the objects that `config` selects.
pub fn controller<K>(api: Api<K>, config: watcher::Config) -> Controller<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    Controller::new(api, config).trigger_backoff(pauses())
}

/// The pauses between tries to watch, for a watch that is not a controller's.
pub fn pauses() -> impl Backoff {
    Pauses(FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_begin_anew() {
        let mut pauses = Pauses(FIRST);
        let all: Vec<u128> = pauses.by_ref().take(7).map(|pause| pause.as_millis()).collect();
        assert_eq!(all, [50, 100, 200, 400, 800, 1000, 1000]);
        pauses.reset();
        assert_eq!(pauses.next(), Some(FIRST));
    }
}
