//! The death of a role.

use crate::client::{Knocker, ask_api, begin};
use crate::fixture::{Instance, eventually, lives, signal};
use crate::workload::Sleeper;

#[test]
fn a_killed_role_is_restarted_and_no_client_is_refused_meanwhile() {
    let instance = Instance::up();
    let sleeper = Sleeper::start(&instance);
    let knocker = Knocker::start(&instance);
    let mut before = instance.all_ready_but(&[]);
    for role in ["control", "edge", "node"] {
        signal(before[role], "KILL");
        // Sent while no process accepts: it waits and is answered.
        assert_eq!(ask_api(&instance, "/readyz").unwrap(), 200, "after the death of {role}");
        let after = instance.all_ready_but(&[before[role]]);
        for other in ["control", "edge", "node"].into_iter().filter(|other| *other != role) {
            assert_eq!(after[other], before[other], "{other} is not touched by the death of {role}");
        }
        let status = instance.status();
        assert_eq!(status["supervisor"]["roles"][role]["restarts"], 1);
        assert_eq!(status["supervisor"]["roles"][role]["lastExit"], "signal 9");
        sleeper.goes_on(role);
        before = after;
    }
    knocker.never_refused();
    assert_eq!(sleeper.end()["code"], 7);
}

#[test]
fn signals_to_roles_end_no_guest() {
    let instance = Instance::up();
    let sleeper = Sleeper::start(&instance);
    for role in ["control", "edge", "node"] {
        let pid = instance.all_ready_but(&[])[role];
        // Not for roles: nothing happens. That they were looked at is seen in the log.
        for name in ["INT", "HUP"] {
            signal(pid, name);
            let log = instance.state().join(format!("log/{role}.log"));
            eventually("the role has seen the signal", || {
                std::fs::read_to_string(&log).unwrap().contains(&format!("ignored SIG{name}")).then_some(())
            });
            assert!(lives(pid), "{role} after SIG{name}");
        }
        signal(pid, "TERM");
        instance.all_ready_but(&[pid]);
        assert_eq!(instance.status()["supervisor"]["roles"][role]["lastExit"], "exit code 0");
        sleeper.goes_on(role);
    }
    assert_eq!(sleeper.end()["code"], 7);
}

#[test]
fn roles_have_no_more_rights_than_they_need() {
    let instance = Instance::up();
    let base = u32::try_from(instance.record()["uids"]["base"].as_u64().unwrap()).unwrap();
    for (role, pid) in instance.all_ready_but(&[]) {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        let wanted = match role.as_str() {
            "control" => base + 1,
            "edge" => base + 2,
            _ => 0,
        };
        assert_eq!(field("Uid:"), vec![wanted.to_string(); 4].join(" "), "{role}");
        assert_eq!(field("Gid:"), vec![wanted.to_string(); 4].join(" "), "{role}");
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let session = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap();
        assert_eq!(session, pid.to_string(), "{role} leads a session of its own");
        if wanted != 0 {
            for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
                assert_eq!(field(set), "0000000000000000", "{role} {set}");
            }
            assert_eq!(field("NoNewPrivs:"), "1", "{role}");
            assert_eq!(field("Groups:"), "", "{role}");
        }
    }
}

#[test]
fn memory_of_roles_is_limited_by_a_group_of_their_own() {
    let instance = Instance::up();
    let memory_group = |pid: i32| {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let of_memory =
            |line: &&str| line.split(':').nth(1).is_some_and(|names| names.split(',').any(|n| n == "memory"));
        let line = groups.lines().find(of_memory).or_else(|| groups.lines().find(|line| line.starts_with("0::")));
        line.and_then(|line| line.splitn(3, ':').nth(2)).unwrap().to_owned()
    };
    let score = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().parse::<i32>();
    for (role, pid) in instance.ready_roles() {
        let group = format!("/{}/roles/{role}", instance.name);
        assert_eq!(memory_group(pid), group, "{role}");
        let files = ["/sys/fs/cgroup/memory{}/memory.limit_in_bytes", "/sys/fs/cgroup{}/memory.max"];
        let limit = files.iter().find_map(|file| std::fs::read_to_string(file.replace("{}", &group)).ok()).unwrap();
        let limit: u64 = limit.trim().parse().expect("a number, not `max`");
        assert!((384 << 20..=1 << 40).contains(&limit), "{role}: {limit}");
        assert!(score(pid).unwrap() < 300, "{role} ends before a guest does");
    }
    // What the node starts leaves its group: a workload's memory is not the node's.
    let shims =
        evroc_node::cgroup::Cgroups::discover().unwrap().folders(&evroc_node::cgroup::shims_group(&instance.name));
    assert!(shims.iter().any(|folder| folder.join("cgroup.procs").exists()), "{shims:?}");
    instance.must(&["down"]);
    let left = evroc_node::cgroup::Cgroups::discover().unwrap().children(&instance.name);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn logs_are_rotated_and_roles_write_to_the_new_file() {
    let instance = Instance::up();
    let roles = instance.all_ready_but(&[]);
    let path = instance.state().join("log/control.log");
    let old = instance.state().join("log/control.log.1");
    // Larger than the limit at once, in place of days of requests.
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().set_len(20 << 20).unwrap();
    eventually("the log is rotated", || (old.exists() && path.exists()).then_some(()));
    // Rename and hint are two steps: until the role has taken the hint, its lines go to the old file.
    eventually("the role writes to the new file", || {
        signal(roles["control"], "HUP");
        std::fs::read_to_string(&path).unwrap().contains("ignored SIGHUP").then_some(())
    });
    assert_eq!(instance.all_ready_but(&[]), roles, "nothing was restarted for it");
}

/// A program that is not installed is named by the host's agent; that it looks at all is seen here, where all are.
#[test]
fn a_host_reports_whether_its_programs_are_installed() {
    use std::io::Read;
    let instance = Instance::up();
    let condition = eventually("the host reports on its programs", || {
        let mut answer = begin(&instance, "/apis/infra.evroclabs.net/v1alpha1/hosts").ok()?;
        let mut text = String::new();
        // The end of a connection without a word of TLS is an end too.
        let _ = answer.read_to_string(&mut text);
        let hosts: serde_json::Value = serde_json::from_str(&text[text.find("\r\n\r\n")?..]).ok()?;
        let conditions = hosts["items"][0]["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|condition| condition["type"] == "ToolsInstalled")
    });
    assert_eq!((condition["status"].as_str(), condition["reason"].as_str()), (Some("True"), Some("Installed")));
}
