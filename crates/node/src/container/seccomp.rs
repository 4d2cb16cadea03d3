//! The seccomp profile of containers, in the runtime's format.

use serde_json::{Value, json};

/// The calls that are allowed with any arguments.
const ALLOWED: &str = include_str!("seccomp.txt");

/// Flags of `clone` that make namespaces (`CLONE_NEW*` but for `CLONE_NEWTIME`, which `clone` cannot say).
const CLONE_NAMESPACES: u64 = 0x7E02_0000;

/// The profile as it stands in `linux.seccomp`.
pub fn profile() -> Value {
    let mut rules = vec![json!({"names": allowed(), "action": "SCMP_ACT_ALLOW"})];
    // Only what changes nothing about the machine's security: Linux, its 32-bit sort, and queries.
    for persona in [0x0_u64, 0x8, 0x20000, 0x20008, 0xffff_ffff] {
        rules.push(allow_if("personality", 0, "SCMP_CMP_EQ", persona, None));
    }
    rules.push(allow_if("clone", 0, "SCMP_CMP_MASKED_EQ", CLONE_NAMESPACES, Some(0)));
    // Its flags are behind a pointer, out of the filter's sight; C libraries fall back to `clone` on ENOSYS.
    rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}));
    // Every address family but ALG (38: the kernel's crypto, full of holes) and VSOCK (40: the way to a hypervisor).
    rules.push(allow_if("socket", 0, "SCMP_CMP_LT", 38, None));
    rules.push(allow_if("socket", 0, "SCMP_CMP_EQ", 39, None));
    rules.push(allow_if("socket", 0, "SCMP_CMP_GT", 40, None));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    })
}

fn allowed() -> Vec<&'static str> {
    ALLOWED.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_ascii_whitespace).collect()
}

fn allow_if(name: &str, index: u32, operation: &str, value: u64, second: Option<u64>) -> Value {
    let mut condition = json!({"index": index, "value": value, "op": operation});
    if let Some(second) = second {
        condition["valueTwo"] = second.into();
    }
    json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [condition]})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dangerous_calls_are_not_allowed() {
        let names = allowed();
        for name in [
            "mount",
            "umount2",
            "pivot_root",
            "bpf",
            "unshare",
            "setns",
            "reboot",
            "init_module",
            "finit_module",
            "kexec_load",
            "keyctl",
            "add_key",
            "perf_event_open",
            "userfaultfd",
            "io_uring_setup",
            "swapon",
            "acct",
            "open_by_handle_at",
            "move_mount",
            "fsopen",
            "clone",
            "clone3",
            "socket",
            "personality",
            "settimeofday",
        ] {
            assert!(!names.contains(&name), "{name}");
        }
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len(), "a name occurs twice");
    }
}
