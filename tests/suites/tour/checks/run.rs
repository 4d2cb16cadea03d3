//! The service of the tour: it answers, sleeps without a process, wakes without losing a request.

use std::time::Duration;

use anyhow::{Result, ensure};
use evroc_tests::leftovers::processes::{Process, all};
use evroc_tests::process::Output;

use crate::tour::step::Tour;

/// How many requests the loop makes.
const REQUESTS: usize = 500;

/// The order of pauses in the loop; the same with every run, so that a failure can be repeated.
const SEED: u64 = 0x5eed_0500;

/// The container's own answer.
pub fn greets(_: &mut Tour, output: &Output) -> Result<()> {
    ensure!(output.stdout.contains("Hello from evroc Run"), "expected the greeting of the container");
    Ok(())
}

/// Processes of the service's containers.
fn containers(tour: &Tour) -> Vec<Process> {
    let mark = format!("/{}/", tour.cloud.instance());
    let is_workload = |process: &Process| {
        process.group.contains(&mark)
            && ["httpd", "/bin/start", "start"].iter().any(|name| process.command.contains(name))
    };
    all()
        .into_iter()
        .filter(is_workload)
        .filter(|process| !process.command.contains("evrocd") && !process.command.contains("qemu"))
        .collect()
}

/// The container runs after a request, and some time later no process of it does.
pub fn idles_to_zero(tour: &mut Tour) -> Result<()> {
    let url = tour.value("service/hello", ".status.url")?;
    ask(tour, &url)?;
    ensure!(
        !containers(tour).is_empty(),
        "the service has answered and no process of its container is to be found: this test sees nothing"
    );
    wait_for_zero(tour)
}

fn wait_for_zero(tour: &Tour) -> Result<()> {
    tour.eventually(|tour| {
        let running: Vec<String> =
            containers(tour).into_iter().map(|process| format!("{} {}", process.pid, process.command)).collect();
        ensure!(running.is_empty(), "still running: {running:?}");
        Ok(())
    })
}

/// The log has the container's output before it was stopped and after it was started again.
pub fn logs_show_the_requests(_: &mut Tour, output: &Output) -> Result<()> {
    for expected in ["on port 8080", "GET /?again"] {
        ensure!(output.stdout.contains(expected), "expected `{expected}` in the log");
    }
    Ok(())
}

/// Bursts with pauses, some of them until no container is left; every answer is 200.
pub fn five_hundred_requests(tour: &mut Tour) -> Result<()> {
    let url = tour.value("service/hello", ".status.url")?;
    let mut random = SEED;
    let mut next = |bound: u64| {
        // A linear congruence: enough to be irregular, and the same every time.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    let (mut sent, mut zeros) = (0, 0);
    while sent < REQUESTS {
        let burst = (1 + next(40) as usize).min(REQUESTS - sent);
        let parallel = 1 + next(8);
        let codes = tour.shell(&format!(
            "seq {burst} | xargs -P {parallel} -I N curl -s -o /dev/null -m 30 -w '%{{http_code}}\\n' --cacert $EVROC_CA '{url}/?N' || true"
        ))?;
        let wrong: Vec<&str> = codes.lines().filter(|code| *code != "200").collect();
        ensure!(wrong.is_empty(), "after {sent} requests and {zeros} times at zero: expected 200, found {wrong:?}");
        ensure!(codes.lines().count() == burst, "expected {burst} answers, found {}", codes.lines().count());
        sent += burst;
        // A few bursts begin at zero; waiting for it every time would take longer than the suite may.
        if zeros < 4 && next(4) == 0 && tour.left() > Duration::from_secs(90) {
            wait_for_zero(tour)?;
            zeros += 1;
        }
    }
    ensure!(zeros > 0, "the loop was never at zero");
    Ok(())
}

fn ask(tour: &Tour, url: &str) -> Result<()> {
    let code = tour.shell(&format!("curl -s -o /dev/null -m 30 -w '%{{http_code}}' --cacert $EVROC_CA {url}/"))?;
    ensure!(code == "200", "expected 200 from {url}, found {code}");
    Ok(())
}
