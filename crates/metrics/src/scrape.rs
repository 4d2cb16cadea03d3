//! Values that are read when the text is asked for.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;

/// Takes the values of one reading.
pub struct Scrape<'a>(pub(crate) DescriptorEncoder<'a>);

impl Scrape<'_> {
    /// Writes a gauge, one value for each label set.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut metric = self.0.encode_descriptor(name, &sentence(help), None, MetricType::Gauge)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// Writes a counter, one value for each label set. The name is without `_total`.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut metric = self.0.encode_descriptor(name, &sentence(help), None, MetricType::Counter)?;
        for (labels, value) in values {
            metric.encode_family(&labels)?.encode_counter::<[(&str, &str); 0], _, f64>(&value, None)?;
        }
        Ok(())
    }

    /// Writes a gauge without labels.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.0.encode_descriptor(name, &sentence(help), None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// Writes a counter without labels. The name is without `_total`.
    ///
    /// # Errors
    /// If the text cannot be written.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, &sentence(help), None, MetricType::Counter)?;
        metric.encode_counter::<[(&str, &str); 0], _, f64>(&value, None)
    }
}

/// Registered families get this full stop from the library.
fn sentence(help: &str) -> String {
    format!("{help}.")
}
