//! For each class: something is planted, found by name, and removed again.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::*;
use crate::names;

fn new_since(before: &Snapshot) -> Vec<String> {
    Snapshot::take().since(before, &Foreign::default()).iter().map(ToString::to_string).collect()
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("run ip");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_planted_network_namespace_is_found_with_its_mount() {
    let name = names::random();
    let before = Snapshot::take();
    ip(&["netns", "add", &name]);
    let found = new_since(&before);
    let of_instance = Snapshot::take().of_instance(&name);
    ip(&["netns", "delete", &name]);
    assert!(found.contains(&format!("network namespace {name}")), "{found:?}");
    assert!(found.contains(&format!("mount /run/netns/{name}")), "{found:?}");
    assert!(of_instance.iter().any(|leftover| leftover.class == Class::NetworkNamespace), "{of_instance:?}");
    let after: Vec<String> = new_since(&before).into_iter().filter(|item| item.contains(&name)).collect();
    assert_eq!(after, Vec::<String>::new());
}

#[test]
fn a_planted_link_is_found() {
    let name = foreign::link_prefix(&names::random()) + "t0";
    let before = Snapshot::take();
    ip(&["link", "add", &name, "type", "bridge"]);
    let found = new_since(&before);
    ip(&["link", "delete", &name]);
    assert!(found.contains(&format!("network link {name}")), "{found:?}");
}

#[test]
fn a_planted_process_is_found_by_its_environment() {
    let before = Snapshot::take();
    let mut child = Command::new("sleep")
        .arg("600")
        .env(processes::RUN_VARIABLE, "x")
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("start sleep");
    // The kernel lets go of the parent a moment before the new program's arguments can be read.
    while processes::Process::read(child.id()).is_none() {
        std::thread::yield_now();
    }
    let found = new_since(&before);
    child.kill().expect("kill");
    child.wait().expect("wait");
    let expected = format!("process {} ", child.id());
    assert!(found.iter().any(|item| item.starts_with(&expected) && item.contains("sleep 600")), "{found:?}");
}

#[test]
fn a_planted_control_group_is_found_in_its_hierarchy() {
    let name = names::random();
    let before = Snapshot::take();
    let roots = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"];
    let Some(folder) =
        roots.iter().map(|root| format!("{root}/{name}")).find(|folder| std::fs::create_dir(folder).is_ok())
    else {
        panic!("no hierarchy of control groups is writable; run the tests as root");
    };
    let found = new_since(&before);
    std::fs::remove_dir(&folder).expect("remove the group");
    assert!(
        found.iter().any(|item| item.starts_with("control group ") && item.ends_with(&format!(":/{name}"))),
        "{found:?}"
    );
}

#[test]
fn a_group_below_an_existing_one_belongs_to_its_owner() {
    let snapshot = |groups: &[&str]| Snapshot {
        items: [(Class::Cgroup, groups.iter().map(|group| (*group).to_owned()).collect())].into(),
    };
    let before = snapshot(&["memory:/init", "memory:/init/a"]);
    let after = snapshot(&["memory:/init", "memory:/init/b/c", "cpu:/init/b", "memory:/evt-1", "memory:/evt-1/vm"]);
    let found: Vec<String> = after.since(&before, &Foreign::default()).into_iter().map(|found| found.item).collect();
    assert_eq!(found, ["cpu:/init/b", "memory:/evt-1", "memory:/evt-1/vm"]);
}

#[test]
fn a_planted_file_is_found_and_a_foreign_one_is_not() {
    let name = names::random();
    let before = Snapshot::take();
    let folder = format!("/tmp/{name}");
    std::fs::create_dir(&folder).expect("make the folder");
    let after = Snapshot::take();
    std::fs::remove_dir(&folder).expect("remove the folder");
    let planted = Leftover { class: Class::File, item: folder };
    assert!(after.since(&before, &Foreign::default()).contains(&planted));
    assert!(!after.since(&before, &Foreign::of(&[&name])).contains(&planted));
}
