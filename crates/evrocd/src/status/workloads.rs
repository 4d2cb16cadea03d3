//! Guests and containers as the files of the node describe them, for those who have no API to ask.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::report::{Workload, WorkloadState};
use crate::instance::Layout;
use crate::process::ProcessId;

/// Guests and containers, from the folders of their shims.
pub fn workloads(layout: &Layout, boot_id: &str) -> Vec<Workload> {
    let Ok(entries) = fs::read_dir(layout.shims()) else { return Vec::new() };
    let mut found: Vec<Workload> = entries
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .map(|entry| {
            let id = entry.file_name().to_string_lossy().into_owned();
            let pid = workload_process(&entry.path(), boot_id);
            let state = match pid {
                Some(_) => WorkloadState::Running,
                None if entry.path().join("exit.json").exists() => WorkloadState::Ended,
                None => WorkloadState::Lost,
            };
            Workload { id, state, pid }
        })
        .collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    found
}

/// The workload's process by the shim's `pid.json`, if it lives.
fn workload_process(folder: &Path, boot_id: &str) -> Option<i32> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Pid {
        boot_id: String,
        child: ProcessId,
    }
    let record: Pid = serde_json::from_slice(&fs::read(folder.join("pid.json")).ok()?).ok()?;
    (record.boot_id == boot_id && record.child.open().is_some()).then_some(record.child.pid)
}

/// The node's finding about hardware acceleration.
pub fn accelerator(layout: &Layout) -> Option<serde_json::Value> {
    serde_json::from_slice(&fs::read(layout.accelerator()).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_shims_are_distinguished() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout { state: folder.path().to_owned(), run: folder.path().to_owned() };
        let own = ProcessId::current().unwrap();
        for (id, pid_json, has_exit) in [
            ("a", Some(serde_json::json!({"bootId": "b", "child": own, "shim": own})), false),
            ("b", Some(serde_json::json!({"bootId": "older", "child": own})), false),
            ("c", None, true),
        ] {
            fs::create_dir_all(layout.shims().join(id)).unwrap();
            if let Some(json) = pid_json {
                fs::write(layout.shims().join(id).join("pid.json"), json.to_string()).unwrap();
            }
            if has_exit {
                fs::write(layout.shims().join(id).join("exit.json"), "{}").unwrap();
            }
        }
        let states: Vec<WorkloadState> = workloads(&layout, "b").into_iter().map(|found| found.state).collect();
        assert_eq!(states, [WorkloadState::Running, WorkloadState::Lost, WorkloadState::Ended]);
    }
}
