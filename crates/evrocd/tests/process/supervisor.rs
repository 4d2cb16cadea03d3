//! The death, the replacement and the end of the supervisor.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use crate::client::{Knocker, ask_api};
use crate::fixture::{EVROCD, Instance, eventually, lives, signal};
use crate::workload::Sleeper;

#[test]
fn roles_serve_on_without_a_supervisor_and_the_next_one_takes_over() {
    let instance = Instance::up();
    let sleeper = Sleeper::start(&instance);
    let ports = instance.ports();
    let before = instance.all_ready_but(&[]);
    let old = instance.supervisor();
    let knocker = Knocker::start(&instance);
    signal(old, "KILL");
    eventually("the supervisor is dead", || (!lives(old)).then_some(()));
    assert_eq!(instance.status()["state"], "orphaned");
    assert_eq!(instance.status()["orphans"].as_array().unwrap().len(), 3);
    assert!(before.values().all(|pid| lives(*pid)), "roles go on");
    assert_eq!(ask_api(&instance, "/readyz").unwrap(), 200, "without a supervisor");

    let text = instance.start(&[]);
    assert!(text.contains("3 of its roles still ran"), "{text}");
    let old_pids: Vec<i32> = before.values().copied().collect();
    instance.all_ready_but(&old_pids);
    assert_eq!(instance.ports(), ports);
    assert!(old_pids.iter().all(|pid| !lives(*pid)), "the old roles have ended");
    assert_eq!(ask_api(&instance, "/readyz").unwrap(), 200, "with the new one");
    knocker.never_refused();
    sleeper.goes_on("a new supervisor");
    assert_eq!(sleeper.end()["code"], 7);
}

#[test]
fn a_dead_supervisors_roles_do_not_count_as_a_taken_port() {
    let instance = Instance::up();
    let (api, https) = instance.ports();
    signal(instance.supervisor(), "KILL");
    // Named by flags: were the ports judged before the old roles are dealt with, this would be refused.
    let (api_text, https_text) = (api.to_string(), https.to_string());
    instance.start(&["--api-port", &api_text, "--https-port", &https_text]);
    assert_eq!(instance.ports(), (api, https));
}

#[test]
fn signals_to_the_supervisor_end_no_guest() {
    let instance = Instance::up();
    let sleeper = Sleeper::start(&instance);
    let pid = instance.supervisor();
    signal(pid, "HUP");
    let log = instance.state().join("log/supervisor.log");
    eventually("the signal was seen", || {
        std::fs::read_to_string(&log).unwrap().contains("ignored SIGHUP").then_some(())
    });
    assert!(lives(pid));
    for name in ["TERM", "INT"] {
        let roles = instance.all_ready_but(&[]);
        let pid = instance.supervisor();
        signal(pid, name);
        eventually("the supervisor ends", || (!lives(pid)).then_some(()));
        assert!(roles.values().all(|pid| !lives(*pid)), "roles end with it");
        assert_eq!(instance.status()["state"], "stopped");
        sleeper.goes_on(name);
        instance.start(&[]);
    }
    assert_eq!(sleeper.end()["code"], 7);
}

#[test]
fn a_second_up_reports_the_running_cloud_and_another_build_takes_over_in_place() {
    let instance = Instance::up();
    let sleeper = Sleeper::start(&instance);
    let (ports, supervisor) = (instance.ports(), instance.supervisor());
    let text = instance.start(&[]);
    assert!(text.contains("is already running") && text.contains("export KUBECONFIG="), "{text}");
    assert_eq!(instance.supervisor(), supervisor);
    let other_port = (ports.0 ^ 1).to_string();
    let text = instance.must_fail(&["up", "--detach", "--api-port", &other_port]);
    assert!(text.contains("is running with") && text.contains("evrocd down"), "{text}");

    // Another build: the same program with a byte more.
    let other = instance.home.path().join("evrocd-other");
    std::fs::copy(EVROCD, &other).unwrap();
    std::fs::OpenOptions::new().append(true).open(&other).unwrap().write_all(b"x").unwrap();
    let before: Vec<i32> = instance.all_ready_but(&[]).values().copied().collect();
    let knocker = Knocker::start(&instance);
    let output = instance.run(&other, &["up", "--detach"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("handing over"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    instance.all_ready_but(&before);
    knocker.never_refused();
    assert_eq!(instance.ports(), ports);
    assert_eq!(instance.supervisor(), supervisor, "the process stays, the program changes");
    assert_eq!(ask_api(&instance, "/readyz").unwrap(), 200);
    sleeper.goes_on("another build");
    assert_eq!(sleeper.end()["code"], 7);
}

#[test]
fn down_works_with_and_without_a_supervisor() {
    let instance = Instance::up();
    let pids: Vec<i32> = instance.all_ready_but(&[]).values().copied().collect();
    let text = instance.must(&["down"]);
    assert!(text.contains("no guest or container ran") && text.contains("is stopped"), "{text}");
    assert!(pids.iter().all(|pid| !lives(*pid)));
    assert_eq!(instance.status()["state"], "stopped");
    assert!(instance.must(&["down"]).contains("nothing of it was running"));

    instance.start(&[]);
    let pids: Vec<i32> = instance.all_ready_but(&[]).values().copied().collect();
    let supervisor = instance.supervisor();
    signal(supervisor, "KILL");
    eventually("the supervisor is dead", || (!lives(supervisor)).then_some(()));
    let text = instance.must(&["down"]);
    assert!(text.contains("ending 3 roles"), "{text}");
    assert!(pids.iter().all(|pid| !lives(*pid)));
    let nothing = Instance::new();
    assert!(nothing.must(&["down", "--purge"]).contains("there is no instance"));
    assert_eq!(nothing.run(Path::new(EVROCD), &["status"]).status.code(), Some(3));
}

#[test]
fn a_down_during_a_start_waits_for_it_and_stops_it() {
    let instance = Instance::new();
    let mut parent = instance.spawn(&["up", "--detach", "--no-hosts-block", "--api-port", "0", "--https-port", "0"]);
    eventually("the record exists", || instance.has_record().then_some(()));
    instance.must(&["down"]);
    parent.wait().unwrap();
    assert_eq!(instance.status()["state"], "stopped");
    assert_eq!(instance.supervisors(), Vec::<i32>::new());
}

/// Ctrl-C at the terminal reaches the whole foreground process group; roles and shims are not in it.
#[test]
fn ctrl_c_stops_a_supervisor_in_the_foreground_and_no_guest() {
    let instance = Instance::new();
    let mut command =
        instance.command(Path::new(EVROCD), &["up", "--no-hosts-block", "--api-port", "0", "--https-port", "0"]);
    let mut foreground = command.process_group(0).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(foreground.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("evroc is running")));
    let sleeper = Sleeper::start(&instance);
    let roles = instance.all_ready_but(&[]);
    signal(-i32::try_from(foreground.id()).unwrap(), "INT");
    assert!(foreground.wait().unwrap().success());
    assert!(lines.any(|line| line.unwrap().contains("guests and containers go on")));
    assert!(roles.values().all(|pid| !lives(*pid)));
    sleeper.goes_on("Ctrl-C");
    assert_eq!(sleeper.end()["code"], 7);
}
