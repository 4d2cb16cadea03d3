//! A program in JavaScript: `tests/clients/informer.mjs`.

use std::path::Path;
use std::process::Command;

use evroc_testkit::IMAGE;

use super::{World, run, tools};

#[tokio::test(flavor = "multi_thread")]
async fn an_informer_of_the_official_client_follows() {
    let world = World::start().await;
    let mut command = Command::new(tools().join("clients/bin/node"));
    // Node looks for packages beside the program, so it runs where they are.
    let folder = tools().join("clients-js");
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/informer.mjs"), folder.join("informer.mjs"))
        .expect("scripts/install-test-clients brings the packages");
    command
        .current_dir(&folder)
        .args(["informer.mjs", IMAGE])
        .env("KUBECONFIG", &world.kubeconfig)
        .env("TMPDIR", world.folder());
    let output = run(command).await;
    assert!(output.ok() && output.stdout.contains("passed"), "{}\n{}", output.ending(), output.both);
}
