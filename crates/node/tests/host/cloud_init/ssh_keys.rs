//! The check of SSH keys takes and refuses what OpenSSH does: keys and certificates that it makes, whole and cut short.

use std::path::Path;
use std::process::{Command, Stdio};

use evroc_api::ssh_key;

fn keygen(folder: &Path, arguments: &[&str]) -> bool {
    let mut command = Command::new("ssh-keygen");
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().expect("ssh-keygen runs").success()
}

/// Keys of every type that needs no hardware, and a certificate for each.
fn lines(folder: &Path) -> Vec<String> {
    assert!(keygen(folder, &["-q", "-t", "ed25519", "-N", "", "-f", "authority"]));
    let types = [("ed25519", "256"), ("rsa", "2048"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521")];
    let mut lines = Vec::new();
    for (kind, bits) in types {
        let name = format!("{kind}{bits}");
        assert!(keygen(folder, &["-q", "-t", kind, "-b", bits, "-N", "", "-C", "me@laptop", "-f", &name]));
        let public = format!("{name}.pub");
        assert!(keygen(folder, &["-q", "-s", "authority", "-I", "id", "-n", "a,b", "-V", "+1d", &public]));
        for file in [public, format!("{name}-cert.pub")] {
            lines.push(std::fs::read_to_string(folder.join(file)).unwrap().trim().to_owned());
        }
    }
    lines
}

#[test]
fn openssh_and_the_api_take_the_same_keys() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("line");
    let agrees = |line: &str| {
        std::fs::write(&file, format!("{line}\n")).unwrap();
        let taken = keygen(folder.path(), &["-l", "-f", "line"]);
        let problem = ssh_key::problem(line);
        assert_eq!(taken, problem.is_none(), "OpenSSH takes it: {taken}: {line}\n{problem:?}");
        taken
    };
    for line in lines(folder.path()) {
        assert!(agrees(&line), "{line}");
        assert!(agrees(&format!("restrict,command=\"echo \\\"a b\\\"\" {line}")), "{line}");
        assert!(agrees(&format!("  {}", line.replacen(' ', "\t ", 1))), "{line}");
        let (kind, rest) = line.split_once(' ').unwrap();
        let (data, comment) = rest.split_once(' ').unwrap();
        for length in (0..data.len()).step_by(data.len() / 12) {
            assert!(!agrees(&format!("{kind} {} {comment}", &data[..length])), "{length} of {line}");
        }
        assert!(!agrees(&format!("{kind} {data}AAAA {comment}")), "{line}");
        assert!(!agrees(data) && !agrees(kind) && !agrees(&format!("command=\"{line}")), "{line}");
    }
}
