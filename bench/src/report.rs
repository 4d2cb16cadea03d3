//! The figures, each with its baseline and its ratio.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Method;

use crate::target::Target;

/// One figure.
pub struct Row {
    name: String,
    unit: &'static str,
    ours: f64,
    baseline: Option<f64>,
    baseline_name: &'static str,
    is_higher_better: bool,
    bar: Option<f64>,
}

impl Row {
    fn new(name: &str, unit: &'static str, ours: f64, baseline: Option<f64>, is_higher_better: bool) -> Self {
        Self { name: name.to_owned(), unit, ours, baseline, baseline_name: "Kubernetes", is_higher_better, bar: None }
    }

    /// More is better.
    pub fn higher(name: &str, unit: &'static str, ours: f64, baseline: f64) -> Self {
        Self::new(name, unit, ours, Some(baseline), true)
    }

    /// Less is better.
    pub fn lower(name: &str, unit: &'static str, ours: f64, baseline: f64) -> Self {
        Self::new(name, unit, ours, Some(baseline), false)
    }

    /// No result to compare with.
    pub fn alone(name: &str, unit: &'static str, ours: f64) -> Self {
        Self::new(name, unit, ours, None, true)
    }

    /// Another baseline than Kubernetes.
    pub fn beside(self, baseline_name: &'static str) -> Self {
        Self { baseline_name, ..self }
    }

    /// The other build of ours as the baseline, which has no ratio to aim at.
    pub fn beside_another_build(self) -> Self {
        Self { baseline_name: "other build", bar: None, ..self }
    }

    /// The ratio that is aimed at.
    pub fn bar(self, bar: f64) -> Self {
        Self { bar: Some(bar), ..self }
    }

    /// How many times better than the baseline.
    fn ratio(&self) -> Option<f64> {
        let baseline = self.baseline?;
        Some(if self.is_higher_better { self.ours / baseline } else { baseline / self.ours })
    }
}

/// The figures as a table in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from("| measured | ours | baseline | times better | aim |\n|---|---:|---:|---:|---:|\n");
    for row in rows {
        let baseline =
            row.baseline.map_or_else(String::new, |it| format!("{} ({})", figure(it, row.unit), row.baseline_name));
        let ratio = row.ratio().map_or_else(String::new, |it| format!("{it:.2}"));
        let bar = row.bar.map_or_else(String::new, |it| format!("{it:.0}"));
        let _ = writeln!(text, "| {} | {} | {baseline} | {ratio} | {bar} |", row.name, figure(row.ours, row.unit));
    }
    text
}

fn figure(value: f64, unit: &str) -> String {
    let digits = match value {
        0.0..10.0 => format!("{value:.2}"),
        10.0..1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    };
    format!("{digits} {unit}").trim_end().to_owned()
}

/// Replaces the measured part of a document: the table, and a chart of the ratios.
pub fn write(file: &Path, rows: &[Row], table: &str, objects: usize) -> Result<()> {
    const BEGIN: &str = "<!-- figures:begin -->";
    const END: &str = "<!-- figures:end -->";
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let (head, rest) = text.split_once(BEGIN).context("the document has no mark where the figures begin")?;
    let (_, tail) = rest.split_once(END).context("the document has no mark where the figures end")?;
    let compared: Vec<(&Row, f64)> = rows.iter().filter_map(|row| Some((row, row.ratio()?))).collect();
    let names: Vec<String> = compared.iter().map(|(row, _)| format!("\"{}\"", row.name)).collect();
    let ratios: Vec<String> = compared.iter().map(|(_, ratio)| format!("{ratio:.1}")).collect();
    let chart = format!(
        "```mermaid\nxychart-beta horizontal\n  title \"times better than the baseline ({objects} objects)\"\n  x-axis [{}]\n  bar [{}]\n```\n",
        names.join(", "),
        ratios.join(", ")
    );
    let all = format!("{head}{BEGIN}\n{table}\n{chart}{END}{tail}");
    std::fs::write(file, all).with_context(|| format!("write {}", file.display()))
}

/// Installs the kinds of the run in the original, which has none of its own.
pub async fn install(original: &Target, kinds: &Path) -> Result<()> {
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let connection = original.endpoint.connect()?;
    for definition in evroc_api_suite::server::definitions(kinds)? {
        connection.ask(Method::POST, DEFINITIONS, definition.to_string().into()).await?;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while connection.ask(Method::GET, "/apis/test.example/v1/widgets", Bytes::new()).await.is_err() {
        ensure!(Instant::now() < deadline, "the original does not serve the kinds within a minute");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_says_how_many_times_better() {
        let rows = [
            Row::higher("writes", "/s", 3000.0, 600.0).bar(5.0),
            Row::lower("wait", "ms", 2.0, 9.0),
            Row::alone("back", "s", 0.5),
        ];
        let text = table(&rows);
        assert!(text.contains("| writes | 3000 /s | 600.0 /s (Kubernetes) | 5.00 | 5 |"), "{text}");
        assert!(text.contains("| wait | 2.00 ms | 9.00 ms (Kubernetes) | 4.50 |  |"), "{text}");
        assert!(text.contains("| back | 0.50 s |  |  |  |"), "{text}");
    }
}
