//! Values that are read when the text is asked for.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder};
use prometheus_client::metrics::MetricType;

/// Takes the values of one reading.
pub struct Scrape<'a>(pub(crate) DescriptorEncoder<'a>);

impl Scrape<'_> {
    /// Writes a gauge, one value for each label set; nothing if there is none.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, values)
    }

    /// Writes a counter, one value for each label set; nothing if there is none. The name is without `_total`.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, values)
    }

    /// Writes a gauge without labels.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        write(self.0.encode_descriptor(name, &sentence(help), None, MetricType::Gauge)?, MetricType::Gauge, value)
    }

    /// Writes a counter without labels. The name is without `_total`.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        write(self.0.encode_descriptor(name, &sentence(help), None, MetricType::Counter)?, MetricType::Counter, value)
    }

    fn family<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        metric_type: MetricType,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, &sentence(help), None, metric_type)?;
        for (labels, value) in values {
            write(family.encode_family(&labels)?, metric_type, value)?;
        }
        Ok(())
    }
}

fn write(mut metric: MetricEncoder<'_>, metric_type: MetricType, value: f64) -> fmt::Result {
    match metric_type {
        MetricType::Counter => metric.encode_counter::<[(&str, &str); 0], _, f64>(&value, None),
        _ => metric.encode_gauge(&value),
    }
}

/// Registered families get this full stop from the library.
fn sentence(help: &str) -> String {
    format!("{help}.")
}
