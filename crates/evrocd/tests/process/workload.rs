//! A sleeping process under a real shim: the stand-in for a guest or container.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::fixture::{Instance, eventually, lives};

/// A shell that waits for a file and then ends with code 7.
pub struct Sleeper {
    folder: PathBuf,
    /// The shell's pid.
    pub pid: i32,
    /// The shim's pid.
    pub shim: i32,
}

impl Sleeper {
    /// Starts it, with the program of the instance's state folder, as the node does. Outside the node's own folder of shims, where a node
    /// would find and end it as unwanted.
    pub fn start(instance: &Instance) -> Self {
        let folder = instance.state().join("test-shims/sleeper");
        std::fs::create_dir_all(&folder).unwrap();
        let script = format!("while [ ! -e {}/go ]; do sleep 0.1; done; exit 7", folder.display());
        let spec = json!({
            "version": 1,
            "id": "sleeper",
            "argv": ["/bin/sh", "-c", script],
            "env": {"PATH": "/usr/bin:/bin"},
            "socket": folder.join("socket"),
        });
        std::fs::write(folder.join("spec.json"), spec.to_string()).unwrap();
        let mut child = Command::new(instance.state().join("bin/evrocd"))
            .args(["shim", "--dir"])
            .arg(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["ok"], true, "{line}");
        child.wait().unwrap();
        let record: Value = serde_json::from_slice(&std::fs::read(folder.join("pid.json")).unwrap()).unwrap();
        let pid = |name: &str| i32::try_from(record[name]["pid"].as_i64().unwrap()).unwrap();
        Self { pid: pid("child"), shim: pid("shim"), folder }
    }

    /// Fails unless shim and workload live.
    pub fn goes_on(&self, after: &str) {
        assert!(lives(self.pid), "the workload died after {after}");
        assert!(lives(self.shim), "the shim died after {after}");
    }

    /// Lets it end and returns the exit record of the shim.
    pub fn end(&self) -> Value {
        std::fs::write(self.folder.join("go"), "").unwrap();
        eventually("the shim writes exit.json", || {
            serde_json::from_slice(&std::fs::read(self.folder.join("exit.json")).ok()?).ok()
        })
    }
}
