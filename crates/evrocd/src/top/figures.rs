//! Rates and quantiles from two readings of the same process.

use std::collections::BTreeMap;

use evroc_metrics::read::Sample;

/// Labels that a sample must have.
pub(super) type Want<'a> = &'a [(&'a str, &'a str)];

/// Two readings of one process. A counter that went back belongs to a process that was restarted: it counts from zero.
#[derive(Clone, Copy)]
pub(super) struct Figures<'a> {
    pub before: &'a [Sample],
    pub now: &'a [Sample],
    pub seconds: f64,
}

fn is_wanted(sample: &Sample, want: Want<'_>) -> bool {
    want.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|it| it == value))
}

impl<'a> Figures<'a> {
    fn of<'w>(samples: &'a [Sample], name: &'w str, want: Want<'w>) -> impl Iterator<Item = &'a Sample> + use<'a, 'w> {
        samples.iter().filter(move |sample| sample.name == name && is_wanted(sample, want))
    }

    /// The sum of values now.
    pub fn sum(&self, name: &str, want: Want<'_>) -> f64 {
        // The sum of nothing is -0.
        Self::of(self.now, name, want).map(|sample| sample.value).sum::<f64>() + 0.0
    }

    /// By how much a counter grew.
    fn growth(&self, sample: &Sample) -> f64 {
        let before = self.before.iter().find(|it| it.name == sample.name && it.labels == sample.labels);
        match before.map_or(0.0, |it| it.value) {
            before if before <= sample.value => sample.value - before,
            _ => sample.value,
        }
    }

    /// The growth of counters per second.
    pub fn rate(&self, name: &str, want: Want<'_>) -> f64 {
        self.rate_if(name, |sample| is_wanted(sample, want))
    }

    /// The growth per second of the counters that `is_it` accepts.
    pub fn rate_if(&self, name: &str, is_it: impl Fn(&Sample) -> bool) -> f64 {
        let grown: f64 = self.now.iter().filter(|it| it.name == name && is_it(it)).map(|it| self.growth(it)).sum();
        (grown + 0.0) / self.seconds.max(f64::EPSILON)
    }

    /// A quantile of what a histogram observed between the readings; `None` if nothing was. Within a bucket, values are taken as evenly
    /// spread, as Prometheus does; above the last bound, the bound is the answer.
    pub fn quantile(&self, quantile: f64, name: &str, want: Want<'_>) -> Option<f64> {
        let mut counts: BTreeMap<u64, f64> = BTreeMap::new();
        for sample in Self::of(self.now, &format!("{name}_bucket"), want) {
            let bound: f64 = sample.labels.get("le").and_then(|le| le.replace("+Inf", "inf").parse().ok())?;
            // Bounds are positive, so their bits are in their order.
            *counts.entry(bound.to_bits()).or_default() += self.growth(sample);
        }
        let total = *counts.values().last()?;
        if total <= 0.0 {
            return None;
        }
        let rank = quantile * total;
        let (mut below, mut start) = (0.0, 0.0);
        for (bits, count) in counts {
            let bound = f64::from_bits(bits);
            if count >= rank {
                let is_last = bound.is_infinite();
                return Some(if is_last { start } else { start + (bound - start) * (rank - below) / (count - below) });
            }
            (below, start) = (count, bound);
        }
        None
    }

    /// All values of a label.
    pub fn values(&self, name: &str, label: &str) -> Vec<String> {
        let mut found: Vec<String> =
            Self::of(self.now, name, &[]).filter_map(|it| it.labels.get(label).cloned()).collect();
        found.sort();
        found.dedup();
        found
    }
}
