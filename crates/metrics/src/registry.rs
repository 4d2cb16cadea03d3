//! The families of a process or of an instance, and their text.

use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::{Metric, Registry as Families};

use crate::scrape::Scrape;
use crate::{Counters, Gauges, Histogram, Histograms, process};

/// The type of the text that [`Registry::text`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

static PROCESS: LazyLock<Registry> = LazyLock::new(|| {
    let registry = Registry::default();
    registry.at_scrape(process::collect);
    registry
});

/// A set of families. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Families>>);

impl fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Registry")
    }
}

impl Registry {
    /// The registry of this process, with what is known of every process: CPU time, memory, descriptors, start.
    pub fn process() -> &'static Self {
        &PROCESS
    }

    fn families(&self) -> MutexGuard<'_, Families> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a metric or family and returns it. Names are registered once: a second family of a name makes the text invalid. The name
    /// of a counter is without `_total`, which the text adds.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.families().register(name, help, metric.clone());
        metric
    }

    /// Registers counters by label set.
    pub fn counters<L>(&self, name: &str, help: &str) -> Counters<L>
    where
        Counters<L>: Metric + Clone + Default,
    {
        self.register(name, help, Counters::default())
    }

    /// Registers gauges by label set.
    pub fn gauges<L>(&self, name: &str, help: &str) -> Gauges<L>
    where
        Gauges<L>: Metric + Clone + Default,
    {
        self.register(name, help, Gauges::default())
    }

    /// Registers histograms by label set; `buckets` is a function of [`crate::buckets`].
    pub fn histograms<L>(&self, name: &str, help: &str, buckets: fn() -> Histogram) -> Histograms<L>
    where
        L: Clone + std::hash::Hash + Eq,
        Histograms<L>: Metric + Clone,
    {
        self.register(name, help, Histograms::new_with_constructor(buckets))
    }

    /// Has `look` give values each time that the text is asked for. It must not wait for anything.
    pub fn at_scrape(&self, look: impl Fn(&mut Scrape<'_>) -> fmt::Result + Send + Sync + 'static) {
        self.families().register_collector(Box::new(Look(Box::new(look))));
    }

    /// Returns all values as OpenMetrics text, to its end mark.
    pub fn text(&self) -> String {
        let mut all = String::with_capacity(16 << 10);
        // Writing into a string fails only if a value reports an error; the text before it is dropped, because half a family is
        // wrong.
        if text::encode(&mut all, &self.families()).is_err() {
            return "# EOF\n".into();
        }
        all
    }
}

type Looking = dyn Fn(&mut Scrape<'_>) -> fmt::Result + Send + Sync;

struct Look(Box<Looking>);

impl fmt::Debug for Look {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Look")
    }
}

impl Collector for Look {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)(&mut Scrape(encoder))
    }
}
