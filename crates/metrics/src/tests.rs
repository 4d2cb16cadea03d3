//! The text, read by a parser that accepts nothing but OpenMetrics.

use std::collections::BTreeMap;

use crate::read::{ReadError, read};
use crate::{Held, Registry, Text, buckets, labels, words};

labels! {
    struct Labels {
        verb: Verb,
        name: Text,
        code: u16,
    }
}

words! {
    enum Verb {
        Get = "GET",
    }
}

fn labels(name: &str) -> Labels {
    Labels { verb: Verb::Get, name: name.into(), code: 200 }
}

#[test]
fn what_is_written_is_read_back_whatever_a_name_contains() {
    let registry = Registry::default();
    let counters = registry.counters::<Labels>("evroc_things", "Things");
    let hostile = "a\"} evil_total 1\nb\\c";
    counters.get_or_create(&labels("a")).inc_by(3);
    counters.get_or_create(&labels(hostile)).inc();
    let histograms = registry.histograms::<Labels>("evroc_seconds", "Seconds", buckets::request);
    histograms.get_or_create(&labels("a")).observe(0.003);
    registry.at_scrape(|scrape| {
        scrape.gauge("evroc_size_bytes", "Size", 5.5)?;
        scrape.gauges("evroc_none", "Nothing", [] as [([(&str, &str); 0], f64); 0])?;
        scrape.counters("evroc_looked", "Looked", [([("kind", "x")], 2.0)])
    });
    let samples = read(&registry.text()).expect("OpenMetrics");
    let value = |name: &str, label: &str| {
        let found = samples.iter().find(|it| it.name == name && it.labels.values().any(|it| it == label));
        found.unwrap_or_else(|| panic!("{name} {label} in {samples:?}")).value
    };
    assert_eq!(value("evroc_things_total", "a"), 3.0);
    assert_eq!(value("evroc_things_total", hostile), 1.0);
    assert_eq!(value("evroc_seconds_count", "a"), 1.0);
    assert_eq!(value("evroc_looked_total", "x"), 2.0);
    assert_eq!(value("evroc_seconds_bucket", "+Inf"), 1.0);
    let size = samples.iter().find(|it| it.name == "evroc_size_bytes").map(|it| (it.value, it.labels.clone()));
    assert_eq!(size, Some((5.5, BTreeMap::new())));
    assert!(!registry.text().contains("evroc_none"), "a family without values is left out");
    assert!(!samples.iter().any(|it| it.name == "evil_total"));
}

#[test]
fn series_that_are_removed_are_not_in_the_text() {
    let registry = Registry::default();
    let gauges = registry.gauges::<Labels>("evroc_held", "Held");
    let held = Held::new(gauges.get_or_create_owned(&labels("a")));
    assert!(registry.text().contains("name=\"a\",code=\"200\"} 1"), "{}", registry.text());
    drop(held);
    assert!(registry.text().contains("code=\"200\"} 0"));
    gauges.remove(&labels("a"));
    assert_eq!(registry.text(), "# EOF\n");
}

#[test]
fn what_is_not_openmetrics_is_refused() {
    for (text, line) in [
        ("a 1\n# EOF\n", 1),
        ("# TYPE a counter\na 1\n# EOF\n", 2),
        ("# TYPE a counter\na_total -1\n# EOF\n", 2),
        ("# TYPE a gauge\na{b=\"c} 1\n# EOF\n", 2),
        ("# TYPE a gauge\na x\n# EOF\n", 2),
        ("# TYPE a gauge\na 1\na 2\n# EOF\n", 3),
        ("# TYPE a gauge\n# TYPE a gauge\n# EOF\n", 2),
        ("# TYPE a gauge\n# TYPE b gauge\nb 1\na 1\n# EOF\n", 4),
        ("# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\n# EOF\n", 3),
        ("# TYPE a gauge\na 1\n", 3),
        ("# EOF\na 1\n", 2),
        ("# TYPE 1a gauge\n# EOF\n", 1),
    ] {
        assert!(matches!(read(text), Err(ReadError { line: found, .. }) if found == line), "{text}: {:?}", read(text));
    }
}
