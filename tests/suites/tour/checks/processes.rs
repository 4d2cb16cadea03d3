//! The processes of the cloud: their number, their privileges, and their restart.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::tour::step::Tour;

/// The roles that have to run without any privilege.
const UNPRIVILEGED: &[&str] = &["control", "edge"];

/// The instance's record on the machine: ports, and the user who runs it.
pub fn record(tour: &Tour) -> Result<Value> {
    let path = format!("/var/lib/evroc-instances/{}.json", tour.cloud.instance());
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    serde_json::from_str(&text).with_context(|| format!("understand {path}"))
}

/// The pids of supervisor and roles.
pub fn pids(tour: &Tour) -> Result<BTreeMap<String, u32>> {
    let record = record(tour)?;
    let pid = |process: &Value| process["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    let mut pids = BTreeMap::new();
    pids.insert("supervisor".to_owned(), pid(&record["supervisor"]).context("the record has no supervisor")?);
    for (role, process) in record["roles"].as_object().context("the record has no roles")? {
        pids.insert(role.clone(), pid(process).with_context(|| format!("the record has no pid for {role}"))?);
    }
    for role in ["control", "edge", "node"] {
        ensure!(pids.contains_key(role), "expected a role {role} in the record");
    }
    Ok(pids)
}

/// A field of /proc/<pid>/status.
pub fn status_field(pid: u32, field: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} has ended"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("process {pid} has no {field}"))?.trim().to_owned())
}

/// Whether the process lives: a zombie does not.
pub fn alive(pid: u32) -> bool {
    status_field(pid, "State").is_ok_and(|state| !state.starts_with('Z'))
}

/// Ends a process without warning.
pub fn kill(tour: &Tour, pid: u32) -> Result<()> {
    tour.shell(&format!("kill -9 {pid}")).map(drop)
}

/// control and edge run as users of their own, without capabilities, and cannot gain any.
pub fn roles_have_no_privileges(tour: &mut Tour) -> Result<()> {
    let pids = pids(tour)?;
    let mut users = Vec::new();
    for role in UNPRIVILEGED {
        let pid = pids[*role];
        let uid = status_field(pid, "Uid")?.split_whitespace().next().unwrap_or_default().to_owned();
        ensure!(uid != "0", "{role} runs as root");
        for set in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
            let found = status_field(pid, set)?;
            ensure!(
                found.chars().all(|digit| digit == '0') || set == "CapBnd",
                "{role}: expected no capabilities in {set}, found {found}"
            );
        }
        ensure!(status_field(pid, "NoNewPrivs")? == "1", "{role} could gain privileges: NoNewPrivs is not set");
        users.push(uid);
    }
    users.dedup();
    ensure!(users.len() == UNPRIVILEGED.len(), "control and edge share the user {users:?}");
    Ok(())
}

/// Each role is killed while kubectl sends requests: it comes back, and no request fails with a refused connection.
pub fn roles_come_back(tour: &mut Tour) -> Result<()> {
    let ports = record(tour)?["ports"].clone();
    for role in ["control", "edge", "node"] {
        let before = pids(tour)?[role];
        kill(tour, before)?;
        tour.shell("kubectl get disk --request-timeout=15s")
            .with_context(|| format!("right after {role} was killed"))?;
        tour.eventually(|tour| {
            let now = pids(tour)?[role];
            ensure!(now != before && alive(now), "{role} is not back");
            Ok(())
        })?;
    }
    ensure!(record(tour)?["ports"] == ports, "the ports have changed");
    Ok(())
}

/// Roles and their ports outlive the supervisor; the next start finds them.
pub fn supervisor_is_taken_over(tour: &mut Tour) -> Result<()> {
    let (before, ports) = (pids(tour)?, record(tour)?["ports"].clone());
    kill(tour, before["supervisor"])?;
    tour.eventually(|_| {
        ensure!(!alive(before["supervisor"]), "the supervisor lives");
        Ok(())
    })?;
    tour.shell("evrocd up --detach --instance \"$EVROC_INSTANCE\"")?;
    let after = pids(tour)?;
    ensure!(after["supervisor"] != before["supervisor"] && alive(after["supervisor"]), "no new supervisor runs");
    ensure!(record(tour)?["ports"] == ports, "the ports have changed");
    for (role, pid) in &before {
        ensure!(after[role] == *pid || !alive(*pid), "two processes are {role}: {pid} and {}", after[role]);
    }
    tour.shell("kubectl get disk").map(drop)
}
