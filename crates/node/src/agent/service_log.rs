//! The logs of services: those of replicas that run, and those kept of replicas that are gone.
//!
//! A replica's log goes with it; what it wrote is kept as `<logs>/<namespace>/<service>/<replica>-<uid>.log`, the newest
//! few of each service, so that a service at zero still tells what its containers wrote.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use evroc_api::infra::Replica;
use kube::ResourceExt;

use crate::shim::{parse_cri_line, tail};

/// Kept of one replica.
const KEPT_BYTES: u64 = 1 << 20;
/// Kept replicas of one service.
const KEPT_REPLICAS: usize = 10;

/// The kept logs of this host.
#[derive(Clone, Debug)]
pub struct ServiceLogs {
    folder: PathBuf,
}

impl ServiceLogs {
    /// Keeps logs below `folder`.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn of_service(&self, namespace: &str, service: &str) -> PathBuf {
        self.folder.join(namespace).join(service)
    }

    /// Keeps what a replica wrote; `shim` is its shim's folder.
    pub fn keep(&self, replica: &Replica, shim: &Path) -> io::Result<()> {
        let text = match tail(shim, KEPT_BYTES) {
            Ok(text) if !text.is_empty() => text,
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let folder = self.of_service(&replica.namespace().unwrap_or_default(), &replica.spec.service);
        fs::create_dir_all(&folder)?;
        let name = format!("{}-{}.log", replica.name_any(), replica.uid().unwrap_or_default());
        let fresh = folder.join(format!("{name}.new"));
        fs::File::create(&fresh)?.write_all(&text)?;
        fs::rename(&fresh, folder.join(name))?;
        for old in kept(&folder)?.into_iter().rev().skip(KEPT_REPLICAS) {
            fs::remove_file(old)?;
        }
        Ok(())
    }

    /// Forgets a service that is gone.
    pub fn forget(&self, namespace: &str, service: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.of_service(namespace, service)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Services of which logs are kept: namespace and name.
    pub fn services(&self) -> io::Result<Vec<(String, String)>> {
        let mut found = vec![];
        for namespace in folders(&self.folder)? {
            for service in folders(&self.folder.join(&namespace))? {
                found.push((namespace.clone(), service));
            }
        }
        Ok(found)
    }

    /// What a service's replicas wrote, oldest first: kept logs, then those of the shims' folders given.
    pub fn read(&self, namespace: &str, service: &str, running: &[PathBuf]) -> io::Result<Vec<u8>> {
        let mut entries: Vec<Vec<u8>> = vec![];
        for file in kept(&self.of_service(namespace, service))? {
            entries.push(fs::read(file)?);
        }
        for shim in running {
            match tail(shim, KEPT_BYTES) {
                Ok(text) => entries.push(text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let mut lines: Vec<&[u8]> =
            entries.iter().flat_map(|text| text.split(|b| *b == b'\n')).filter(|line| !line.is_empty()).collect();
        // Times come first in a line and are all of the same form, so this is the order of writing across replicas.
        lines.sort_by_key(|line| line.split(|b| *b == b' ').next().map(<[u8]>::to_vec));
        Ok(lines.into_iter().flat_map(|line| plain(line)).collect())
    }
}

/// An entry as the container wrote it.
pub fn plain(entry: &[u8]) -> Vec<u8> {
    match parse_cri_line(entry) {
        Some(line) => {
            let mut text = line.text.to_vec();
            if !line.is_partial {
                text.push(b'\n');
            }
            text
        }
        None => [entry, b"\n"].concat(),
    }
}

/// Kept files, oldest first.
fn kept(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![];
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.path().extension().is_some_and(|e| e == "log") {
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    files.sort();
    Ok(files.into_iter().map(|(_, path)| path).collect())
}

fn folders(folder: &Path) -> io::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(vec![]),
        entries => Ok(entries?.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn replica(name: &str) -> Replica {
        serde_json::from_value(json!({"apiVersion": "infra.evroclabs.net/v1alpha1", "kind": "Replica",
            "metadata": {"name": name, "namespace": "demo", "uid": name}, "spec": {"hostName": "h", "epoch": 1, "service": "hello",
            "revision": "r", "repository": "r", "digest": "d", "port": 1, "memoryBytes": 1, "cpuMillis": 1}}))
        .unwrap()
    }

    #[test]
    fn logs_outlive_their_replicas_and_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let logs = ServiceLogs::new(folder.path().join("logs"));
        let shim = folder.path().join("shim");
        fs::create_dir(&shim).unwrap();
        fs::write(shim.join("log"), "2026-01-01T00:00:02.000000000Z stdout F second\n").unwrap();
        logs.keep(&replica("a"), &shim).unwrap();
        fs::write(
            shim.join("log"),
            "2026-01-01T00:00:01.000000000Z stdout P fir\n2026-01-01T00:00:01.100000000Z stdout F st\n",
        )
        .unwrap();
        assert_eq!(logs.read("demo", "hello", &[shim]).unwrap(), b"first\nsecond\n");
        assert_eq!(logs.services().unwrap(), [("demo".to_owned(), "hello".to_owned())]);
        logs.forget("demo", "hello").unwrap();
        assert_eq!(logs.read("demo", "hello", &[]).unwrap(), b"");
    }

    #[test]
    fn only_the_newest_few_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let logs = ServiceLogs::new(folder.path().join("logs"));
        fs::write(folder.path().join("log"), "x\n").unwrap();
        for n in 0..KEPT_REPLICAS + 3 {
            logs.keep(&replica(&format!("r{n}")), folder.path()).unwrap();
        }
        assert_eq!(kept(&logs.of_service("demo", "hello")).unwrap().len(), KEPT_REPLICAS);
    }
}
