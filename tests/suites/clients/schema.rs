//! schemathesis against our OpenAPI: `tests/clients/schema_fuzz.py`.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{World, run_within, tools};

/// It sends some thousand requests.
const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn valid_objects_are_accepted_and_no_body_makes_the_server_fail() {
    let world = World::start().await;
    let user = world.endpoint.certificate("admin", "evroc:operators");
    let mut command = Command::new(tools().join("clients/bin/python"));
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/schema_fuzz.py"))
        .arg(world.endpoint.url())
        .arg(world.endpoint.authority_file())
        .args(["15", "1"])
        .env("EVROC_USER", user.to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("TMPDIR", world.folder())
        .current_dir(world.folder());
    let output = run_within(command, PATIENCE).await;
    println!("{}", output.stdout);
    assert!(output.ok(), "{}\n{}", output.ending(), output.both);
}
