//! `make stop`, the next start, and the end without a trace.

use anyhow::{Result, ensure};
use evroc_tests::leftovers::Snapshot;
use evroc_tests::leftovers::processes::all;
use evroc_tests::process::Output;

use super::{guests, processes};
use crate::tour::step::Tour;

/// The cloud that was stopped had run.
pub fn had_something_to_stop(tour: &mut Tour, _: &Output) -> Result<()> {
    processes::record(tour).map(drop)
}

/// After the stop nothing of the cloud runs; its state stays.
pub fn nothing_runs(tour: &mut Tour) -> Result<()> {
    // The record outlives the stop: without one this test would look at nothing.
    processes::record(tour)?;
    let instance = tour.cloud.instance().to_owned();
    let marks = [format!("/{instance}/"), format!("/{instance} "), format!("--instance {instance}")];
    tour.eventually(|tour| {
        let running: Vec<String> = all()
            .into_iter()
            .filter(|process| marks.iter().any(|mark| format!("{} {} ", process.group, process.command).contains(mark)))
            .map(|process| format!("{} {}", process.pid, process.command))
            .collect();
        ensure!(running.is_empty(), "still running: {running:?}");
        ensure!(guests::qemus(tour).is_empty(), "a guest is still running");
        Ok(())
    })
}

/// VMs with `running: true` run again after the next start.
pub fn vm_comes_back(tour: &mut Tour) -> Result<()> {
    let clone = tour.cloud.terminal.clone.display().to_string();
    tour.shell(&format!("make -C {clone} run"))?;
    tour.shell("kubectl wait vm/hello --for=condition=Ready --timeout=60s")?;
    tour.eventually(|tour| {
        ensure!(guests::qemus(tour).len() == 1, "expected one guest, found {}", guests::qemus(tour).len());
        Ok(())
    })?;
    tour.shell("evroc compute vm ssh hello -- true").map(drop)
}

/// The purge removes state, links, groups, the block in /etc/hosts and the instance's record.
pub fn purge_leaves_nothing(tour: &mut Tour) -> Result<()> {
    processes::record(tour)?;
    tour.shell("evrocd down --purge --instance \"$EVROC_INSTANCE\"")?;
    tour.eventually(|tour| {
        let leftovers: Vec<String> =
            Snapshot::take().of_instance(tour.cloud.instance()).iter().map(ToString::to_string).collect();
        ensure!(leftovers.is_empty(), "left behind: {leftovers:?}");
        Ok(())
    })
}
