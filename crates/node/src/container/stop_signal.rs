//! The signals that an image's STOPSIGNAL may name.

/// Linux' signals by name, without `SIG`; numbers are those of x86-64.
const NAMES: [(&str, i32); 33] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGIOT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGPOLL),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// Returns the number of a STOPSIGNAL (`SIGQUIT`, `QUIT`, `RTMIN+3` or a number). SIGTERM, which is also Docker's default, where the
/// image names none or one that does not exist.
pub fn stop_signal(text: &str) -> i32 {
    let name = text.trim().to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let named = NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
    named.or_else(|| real_time(name)).or_else(|| number(name)).unwrap_or(libc::SIGTERM)
}

/// `RTMIN`, `RTMIN+n`, `RTMAX`, `RTMAX-n`.
fn real_time(name: &str) -> Option<i32> {
    let offset = |rest: &str, sign: char| match rest.strip_prefix(sign) {
        Some(digits) => digits.parse::<i32>().ok().filter(|offset| *offset >= 0),
        None => rest.is_empty().then_some(0),
    };
    let found = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => libc::SIGRTMIN().checked_add(offset(rest, '+')?)?,
        (_, Some(rest)) => libc::SIGRTMAX().checked_sub(offset(rest, '-')?)?,
        _ => return None,
    };
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&found).then_some(found)
}

fn number(text: &str) -> Option<i32> {
    text.parse().ok().filter(|number| (1..=libc::SIGRTMAX()).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_understood() {
        for (text, want) in [
            ("", 15),
            ("SIGTERM", 15),
            ("SIGQUIT", 3),
            (" quit ", 3),
            ("3", 3),
            ("SIGWINCH", 28),
            ("SIGRTMIN+3", 37),
            ("RTMAX", 64),
            ("RTMAX-1", 63),
            ("RTMIN+99", 15),
            ("RTMIN3", 15),
            ("99", 15),
            ("-1", 15),
            ("nonsense", 15),
        ] {
            assert_eq!(stop_signal(text), want, "{text:?}");
        }
    }
}
