//! `make run`, and the files that it leaves for its caller.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use evroc_tests::process::Output;

use crate::tour::step::Tour;

/// The line ended with success; that is all that it promises.
pub fn anything(_: &mut Tour, _: &Output) -> Result<()> {
    Ok(())
}

/// The shell knows the credentials and the addresses.
pub fn sets_the_shell_up(tour: &mut Tour, _: &Output) -> Result<()> {
    tour.shell(
        "test -r \"$KUBECONFIG\" && test -r \"$EVROC_CA\" && test -n \"$EVROC_REGISTRY\" && type evroc evrocd kubectl",
    )
    .map(drop)
}

/// The end of `make run` has the addresses and the next commands.
pub fn prints_what_to_do_next(_: &mut Tour, output: &Output) -> Result<()> {
    for expected in ["scripts/env", "kubectl apply -f", "https://"] {
        ensure!(output.stdout.contains(expected), "expected `{expected}` among the next steps");
    }
    Ok(())
}

/// Keys and certificates are readable by their owner only.
pub fn credentials_are_private(tour: &mut Tour) -> Result<()> {
    let folder = tour.cloud.terminal.home.join(".evroc").join(tour.cloud.instance());
    for name in ["kubeconfig", "id_ed25519"] {
        let path = folder.join(name);
        let mode =
            fs::metadata(&path).with_context(|| format!("look at {}", path.display()))?.permissions().mode() & 0o777;
        ensure!(mode == 0o600, "{}: expected mode 0600, found {mode:04o}", path.display());
    }
    let config = fs::read_to_string(folder.join("kubeconfig"))?;
    ensure!(
        config.contains("namespace: demo") || config.contains("\"namespace\":\"demo\""),
        "expected namespace demo in the kubeconfig"
    );
    Ok(())
}

/// The images and profiles that a new user starts from.
pub fn shows_the_catalogue(_: &mut Tour, output: &Output) -> Result<()> {
    for name in ["tiny.1-0.1", "test.xs"] {
        ensure!(output.stdout.contains(name), "expected {name} in the catalogue");
    }
    Ok(())
}

/// A second `make run` finds everything done.
pub fn again_without_network(tour: &mut Tour) -> Result<()> {
    let started = Instant::now();
    // Nothing listens on port 9: a program that needs the network fails.
    let nowhere = "http://127.0.0.1:9";
    let line = format!(
        "make -C \"$EVROC_CLONE\" run CARGO_NET_OFFLINE=true http_proxy={nowhere} https_proxy={nowhere} PIP_INDEX_URL={nowhere} PIP_FIND_LINKS="
    );
    let clone = tour.cloud.terminal.clone.display().to_string();
    tour.cloud.terminal.set("EVROC_CLONE", &clone);
    tour.shell(&line)?;
    let took = started.elapsed().as_secs_f64();
    if took > 20.0 {
        bail!("expected under 20 s, took {took:.1} s");
    }
    Ok(())
}

/// The status shows the processes, their addresses, and the free resources.
pub fn status_tells(tour: &mut Tour, output: &Output) -> Result<()> {
    let text = output.stdout.to_lowercase();
    for expected in ["control", "edge", "node", "https://", "cpu", "memory", "disk"] {
        ensure!(text.contains(expected), "expected `{expected}` in the status");
    }
    ensure!(text.contains("tcg") || text.contains("kvm"), "expected the accelerator in the status");
    ensure!(text.contains(tour.cloud.instance()), "expected the instance's name in the status");
    Ok(())
}
