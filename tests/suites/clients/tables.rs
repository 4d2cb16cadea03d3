//! The output of `kubectl get` for every kind, default and wide: a golden file, updated with `UPDATE=1`.

use std::path::Path;

use evroc_api::compute::{PlacementGroup, VirtualMachine};
use evroc_api::run::Service;
use evroc_testkit::IMAGE;
use evroc_testkit::objects::{HasConditions, disk, guest_is_ready, placement_group, service, virtual_machine};

use super::{NEWEST, World};

/// Returns the columns of a line, without what differs from run to run.
fn line(text: &str) -> String {
    let is_age = |word: &str| {
        word.len() > 1 && word.ends_with(['s', 'm', 'h', 'd']) && word.starts_with(|it: char| it.is_ascii_digit())
    };
    let cells = text.split("  ").map(str::trim).filter(|word| !word.is_empty());
    let cells = cells.map(|word| match word {
        word if is_age(word) => "AGE".to_owned(),
        word if word.starts_with("https://svc-") => "URL".to_owned(),
        word => word.to_owned(),
    });
    cells.collect::<Vec<_>>().join(" | ")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_has_its_columns() {
    let world = World::start().await;
    let platform = &world.platform;
    platform.images().push("demo/hello:v1", "65532");
    platform.create(&placement_group("hello")).await;
    platform.until::<PlacementGroup>("hello", "Ready", HasConditions::is_ready).await;
    platform.create(&disk("hello", IMAGE)).await;
    platform.create(&virtual_machine("hello", &["hello"])).await;
    platform.create(&service("hello", "demo/hello:v1")).await;
    platform.until::<VirtualMachine>("hello", "with its guest up", guest_is_ready).await;
    platform.until::<Service>("hello", "Ready", HasConditions::is_ready).await;
    platform.at_rest().await;
    let kubectl = world.kubectl(NEWEST);
    let mut printed = String::new();
    for definition in evroc_api::definitions() {
        let name = definition.metadata.name.unwrap_or_default();
        for form in ["", " -o wide"] {
            let table = kubectl.ok(&format!("get {name}{form}")).await;
            let lines: Vec<String> = table.lines().map(line).take(3).collect();
            printed += &format!("$ kubectl get {name}{form}\n{}\n", lines.join("\n"));
        }
        printed += "\n";
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/clients/tables.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&golden, &printed).expect("write the golden file");
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(printed == expected, "expected (UPDATE=1 renews {}):\n{expected}\nfound:\n{printed}", golden.display());
}
