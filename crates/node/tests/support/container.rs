//! The test program inside containers: the first argument selects its action.
use std::io::{Read, Write};

fn main() {
    let mode = std::env::args().nth(1).unwrap_or_default();
    match mode.as_str() {
        "serve" => serve(libc::SIGTERM, 0),
        "quit" => serve(libc::SIGQUIT, 3),
        "exit" => {
            eprintln!("leaving");
            std::process::exit(7)
        }
        "abort" => std::process::abort(),
        "eat" => {
            let mut all = Vec::new();
            loop {
                all.push(vec![1_u8; 1 << 20]);
            }
        }
        "sleep" => {
            println!("sleeping");
            loop {
                std::thread::park();
            }
        }
        other => panic!("unknown mode {other:?}"),
    }
}

/// Answers every connection with the container's environment, until a signal ends it with the code.
fn serve(signal: libc::c_int, code: libc::c_int) {
    // As the first process of a namespace it would not die of a signal without a handler.
    CODE.store(code, std::sync::atomic::Ordering::Relaxed);
    end_on(signal);
    println!("serving");
    let port = std::env::var("PORT").expect("PORT").parse().expect("a port");
    let listener = std::net::TcpListener::bind(("0.0.0.0", port)).expect("bind");
    for stream in listener.incoming() {
        let mut stream = stream.expect("accept");
        let mut request = [0; 64];
        if !matches!(stream.read(&mut request), Ok(1..)) {
            continue;
        }
        let mut answer = String::new();
        for (name, text) in [
            ("status", std::fs::read_to_string("/proc/self/status")),
            ("mounts", std::fs::read_to_string("/proc/self/mounts")),
            ("net", std::fs::read_to_string("/proc/net/dev")),
            ("routes", std::fs::read_to_string("/proc/net/route")),
            ("hosts", std::fs::read_to_string("/etc/hosts")),
            ("hostname", std::fs::read_to_string("/proc/sys/kernel/hostname")),
            ("cgroup", std::fs::read_to_string("/proc/self/cgroup")),
            ("write /", std::fs::write("/x", "").map(|()| "allowed".into())),
            ("write /tmp", std::fs::write("/tmp/x", "").map(|()| "allowed".into())),
            ("write /run", std::fs::write("/run/x", "").map(|()| "allowed".into())),
            ("write /dev/shm", std::fs::write("/dev/shm/x", "").map(|()| "allowed".into())),
            ("write /proc/sys", std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").map(|()| "allowed".into())),
            ("egress", std::net::TcpStream::connect(("192.0.2.1", 80)).map(|_| "allowed".into())),
            (
                "pids",
                std::fs::read_dir("/proc").map(|all| {
                    all.flatten()
                        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
                        .count()
                        .to_string()
                }),
            ),
        ] {
            let text = text.unwrap_or_else(|error| format!("error: {error}"));
            answer += &format!("== {name}\n{text}\n");
        }
        for (name, value) in std::env::vars() {
            answer += &format!("== env {name}\n{value}\n");
        }
        let _ = stream.write_all(answer.as_bytes());
    }
}

static CODE: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);

#[allow(unsafe_code)]
fn end_on(signal: libc::c_int) {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: _exit may be called in a signal handler.
        unsafe { libc::_exit(CODE.load(std::sync::atomic::Ordering::Relaxed)) }
    }
    // SAFETY: the handler calls nothing but _exit.
    unsafe { libc::signal(signal, end as *const () as libc::sighandler_t) };
}
