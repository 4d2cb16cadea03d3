//! The metrics of a host: the objects that are bound to it, and its starts and pulls.
//!
//! Guests and containers are counted at each scrape, from the objects that the agents keep anyway. A process of tests has many hosts:
//! their numbers are added up.

use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};
use std::time::Instant;

use evroc_api::infra::{Machine, Replica};
use evroc_metrics::{Counters, Gauges, Histogram, Registry, Text, buckets, labels, span, words};
use kube::runtime::reflector::Store;
use tracing::{Instrument, field};

use crate::pool::Usage;

words! {
    enum Outcome {
        Success = "success",
        Error = "error",
    }
}

words! {
    /// The work that a host starts or fetches.
    pub(crate) enum Work {
        /// A hypervisor with its guest.
        Guest = "guest",
        /// A container, until its port accepts connections.
        Container = "container",
        /// A container image that the host did not have.
        Pull = "pull",
    }
}

labels! {
    struct Ended {
        result: Outcome,
    }
}

labels! {
    struct Phase {
        phase: Text,
    }
}

words! {
    enum PoolPart {
        Capacity = "capacity",
        Free = "free",
        Occupied = "occupied",
        Provisioned = "provisioned",
    }
}

labels! {
    struct PoolLabels {
        part: PoolPart,
    }
}

struct Family {
    ends: Counters<Ended>,
    seconds: Histogram,
}

struct Host {
    guests: Family,
    containers: Family,
    pulls: Family,
    pool: Gauges<PoolLabels>,
    machines: Mutex<Vec<Weak<Store<Machine>>>>,
    replicas: Mutex<Vec<Weak<Store<Replica>>>>,
}

static HOST: LazyLock<Arc<Host>> = LazyLock::new(|| {
    let all = Registry::process();
    let family = |total: &str, total_help: &str, seconds: &str, help: &str| Family {
        ends: all.counters(total, total_help),
        seconds: all.register(seconds, help, buckets::work()),
    };
    let host = Arc::new(Host {
        guests: family(
            "evroc_node_guest_starts",
            "Starts of guests",
            "evroc_node_guest_start_duration_seconds",
            "Time until the hypervisor runs the guest, in seconds",
        ),
        containers: family(
            "evroc_node_container_starts",
            "Starts of containers",
            "evroc_node_container_start_duration_seconds",
            "Time until the container's port accepts connections, with the pull of its image, in seconds",
        ),
        pulls: family(
            "evroc_node_image_pulls",
            "Container images that were fetched",
            "evroc_node_image_pull_duration_seconds",
            "Time until an image was fetched and unpacked, in seconds",
        ),
        pool: all.gauges("evroc_node_pool_bytes", "Disk for volumes"),
        machines: Mutex::default(),
        replicas: Mutex::default(),
    });
    let seen = host.clone();
    all.at_scrape(move |scrape| {
        let (machines, replicas) = (present(&seen.machines), present(&seen.replicas));
        let phase = |phase: Option<String>| Text::from(phase.unwrap_or_else(|| "Pending".into()));
        let guests = machines.iter().map(|it| phase(it.status.as_ref().and_then(|s| Some(format!("{:?}", s.phase?)))));
        scrape.gauges("evroc_node_guests", "Guests of this host, by their phase", counted(guests))?;
        let containers =
            replicas.iter().map(|it| phase(it.status.as_ref().and_then(|s| Some(format!("{:?}", s.phase?)))));
        scrape.gauges("evroc_node_containers", "Containers of this host, by their phase", counted(containers))?;
        let committed = machines.iter().map(|it| it.spec.memory_bytes).sum::<u64>()
            + replicas.iter().map(|it| it.spec.memory_bytes).sum::<u64>();
        let help = "Memory that was promised to guests and containers of this host";
        scrape.gauge("evroc_node_committed_memory_bytes", help, committed as f64)
    });
    host
});

fn counted(phases: impl Iterator<Item = Text>) -> impl Iterator<Item = (Phase, f64)> {
    let mut counts = std::collections::BTreeMap::new();
    phases.for_each(|phase| *counts.entry(phase).or_insert(0_u32) += 1);
    counts.into_iter().map(|(phase, count)| (Phase { phase }, f64::from(count)))
}

/// The objects in all stores that are still in use.
fn present<K>(stores: &Mutex<Vec<Weak<Store<K>>>>) -> Vec<Arc<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    let mut stores = stores.lock().unwrap_or_else(PoisonError::into_inner);
    stores.retain(|store| store.strong_count() > 0);
    stores.iter().filter_map(Weak::upgrade).flat_map(|store| store.state()).collect()
}

fn follow<K>(stores: &Mutex<Vec<Weak<Store<K>>>>, store: Store<K>) -> Arc<Store<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    let store = Arc::new(store);
    stores.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&store));
    store
}

/// Has the machines of a host counted as long as the returned value is kept.
#[must_use]
pub(crate) fn follow_machines(store: Store<Machine>) -> Arc<Store<Machine>> {
    follow(&HOST.machines, store)
}

/// Has the replicas of a host counted as long as the returned value is kept.
#[must_use]
pub(crate) fn follow_replicas(store: Store<Replica>) -> Arc<Store<Replica>> {
    follow(&HOST.replicas, store)
}

/// Does the work, in a span of its own, and counts how it ended.
pub(crate) async fn measured<T, E>(work: Work, doing: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let family = match work {
        Work::Guest => &HOST.guests,
        Work::Container => &HOST.containers,
        Work::Pull => &HOST.pulls,
    };
    let name = match work {
        Work::Guest => "start guest",
        Work::Container => "start container",
        Work::Pull => "pull image",
    };
    let span = span!("work", otel.name = name, otel.status_code = field::Empty);
    let begun = Instant::now();
    let done = doing.instrument(span.clone()).await;
    if done.is_err() {
        span.record("otel.status_code", "ERROR");
    }
    let result = if done.is_ok() { Outcome::Success } else { Outcome::Error };
    family.ends.get_or_create(&Ended { result }).inc();
    if done.is_ok() {
        family.seconds.observe(begun.elapsed().as_secs_f64());
    }
    done
}

/// Notes how full the host's disk for volumes is.
pub(crate) fn pool(usage: &Usage) {
    for (part, bytes) in [
        (PoolPart::Capacity, usage.capacity_bytes),
        (PoolPart::Free, usage.free_bytes),
        (PoolPart::Occupied, usage.occupied_bytes),
        (PoolPart::Provisioned, usage.provisioned_bytes),
    ] {
        HOST.pool.get_or_create(&PoolLabels { part }).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use evroc_api::infra::{MachinePhase, MachineSpec, MachineStatus};
    use evroc_metrics::read::read;
    use kube::runtime::{reflector, watcher};

    use super::*;

    fn value(name: &str, label: &str) -> Option<f64> {
        let samples = read(&Registry::process().text()).expect("OpenMetrics");
        samples.iter().find(|it| it.name == name && it.labels.values().any(|it| it == label)).map(|it| it.value)
    }

    #[tokio::test]
    async fn guests_are_counted_by_phase_as_long_as_the_host_is_followed() {
        let (store, mut writer) = reflector::store();
        for (name, phase) in [("a", Some(MachinePhase::Paused)), ("b", Some(MachinePhase::Paused)), ("c", None)] {
            let mut machine = Machine::new(name, MachineSpec::default());
            machine.status = phase.map(|phase| MachineStatus { phase: Some(phase), ..MachineStatus::default() });
            writer.apply_watcher_event(&watcher::Event::Apply(machine));
        }
        let followed = follow_machines(store);
        assert_eq!(value("evroc_node_guests", "Paused"), Some(2.0));
        drop(followed);
        assert_eq!(value("evroc_node_guests", "Paused"), None);
    }

    #[tokio::test]
    async fn work_is_counted_by_its_end() {
        let before = value("evroc_node_guest_starts_total", "error").unwrap_or(0.0);
        assert!(measured(Work::Guest, async { Err::<(), _>("no memory") }).await.is_err());
        assert_eq!(value("evroc_node_guest_starts_total", "error"), Some(before + 1.0));
    }
}
