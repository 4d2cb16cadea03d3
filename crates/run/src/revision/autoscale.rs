//! Decides how many replicas a revision should have: a pure function of the facts and of the time.

use std::time::Duration;

use evroc_api::run::Load;
use k8s_openapi::jiff::Timestamp;

/// Requests that one replica answers at a time before another is started. Too low wastes memory; too high lets requests
/// wait for each other.
pub const TARGET_CONCURRENCY: i32 = 20;
/// The most replicas of a revision.
pub const MAXIMUM: i32 = 10;

/// The facts about a revision.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Whether one of its replicas was ever ready.
    pub proven: bool,
    /// Whether it has a reason to prove itself: it is the service's newest.
    pub newest: bool,
    /// The gateway's last report.
    pub load: Option<&'a Load>,
    /// Since when it has been proven: the start of the idle time of a revision that never had a request.
    pub proven_since: Option<Timestamp>,
    /// How long the last replica is kept without requests.
    pub keep_idle: Duration,
}

/// A decision, and when it may change without any event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// How many replicas there should be.
    pub replicas: i32,
    /// The reason, for people.
    pub reason: String,
    /// When to decide again.
    pub again_in: Option<Duration>,
}

/// Decides.
pub fn decide(facts: Facts<'_>, now: Timestamp) -> Decision {
    let decision = |replicas, reason: String, again_in| Decision { replicas, reason, again_in };
    if !facts.proven {
        return if facts.newest {
            decision(1, "one replica, to see whether the revision becomes ready".into(), None)
        } else {
            decision(0, "a newer revision exists and this one was never ready".into(), None)
        };
    }
    let requests = facts.load.map_or(0, |l| l.waiting + l.in_flight);
    if requests > 0 {
        let wanted = (requests + TARGET_CONCURRENCY - 1) / TARGET_CONCURRENCY;
        let replicas = wanted.clamp(1, MAXIMUM);
        return decision(
            replicas,
            format!("{requests} requests at once, {TARGET_CONCURRENCY} for each replica, at most {MAXIMUM}"),
            None,
        );
    }
    let last = facts.load.and_then(|l| l.last_request_time.as_ref()).map(|t| t.0).max(facts.proven_since);
    let idle = last.map_or(Duration::MAX, |last| now.duration_since(last).unsigned_abs());
    if idle >= facts.keep_idle {
        decision(0, format!("no request for {} s", facts.keep_idle.as_secs()), None)
    } else {
        let left = facts.keep_idle - idle;
        decision(1, format!("the last request was less than {} s ago", facts.keep_idle.as_secs()), Some(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn zero_one_many_and_back() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let load = |requests, last| Load { waiting: 0, in_flight: requests, last_request_time: Some(Time(at(last))) };
        let cases = [
            ("new", false, true, None, 1),
            ("superseded before it was ready", false, false, None, 0),
            ("busy", true, true, Some(load(1, 100)), 1),
            ("very busy", true, true, Some(load(41, 100)), 3),
            ("flooded", true, true, Some(load(10_000, 100)), MAXIMUM),
            ("just idle", true, true, Some(load(0, 95)), 1),
            ("long idle", true, true, Some(load(0, 80)), 0),
            ("never requested, long proven", true, false, None, 0),
        ];
        for (name, proven, newest, load, replicas) in cases {
            let facts = Facts {
                proven,
                newest,
                load: load.as_ref(),
                proven_since: Some(at(10)),
                keep_idle: Duration::from_secs(15),
            };
            assert_eq!(decide(facts, at(100)).replicas, replicas, "{name}");
        }
    }

    #[test]
    fn an_idle_replica_is_looked_at_again_when_its_time_is_over() {
        let now = Timestamp::from_second(100).unwrap();
        let load = Load { last_request_time: Some(Time(Timestamp::from_second(90).unwrap())), ..Load::default() };
        let facts = Facts {
            proven: true,
            newest: true,
            load: Some(&load),
            proven_since: None,
            keep_idle: Duration::from_secs(15),
        };
        assert_eq!(decide(facts, now).again_in, Some(Duration::from_secs(5)));
    }

    proptest::proptest! {
        #[test]
        fn more_requests_never_mean_fewer_replicas(a in 0..400i32, b in 0..400i32, last in 0..200i64, newest: bool) {
            let at = |second| Timestamp::from_second(second).unwrap();
            let decided = |requests: i32| {
                // However they are spread over waiting and being answered.
                let load = Load { waiting: requests / 3, in_flight: requests - requests / 3, last_request_time: Some(Time(at(last))) };
                let keep_idle = Duration::from_secs(15);
                let facts = Facts { proven: true, newest, load: Some(&load), proven_since: Some(at(0)), keep_idle };
                decide(facts, at(100.max(last)))
            };
            let (few, many) = (decided(a.min(b)), decided(a.max(b)));
            assert!(few.replicas <= many.replicas);
            assert!((0..=MAXIMUM).contains(&many.replicas));
            assert!(a.min(b) == 0 || few.replicas > 0, "a request has a replica");
            // Only what changes by time alone is reconciled again after a time.
            assert_eq!(few.again_in.is_some(), a.min(b) == 0 && few.replicas > 0);
            assert!(few.again_in.is_none_or(|again| !again.is_zero() && again <= Duration::from_secs(15)));
        }
    }
}
