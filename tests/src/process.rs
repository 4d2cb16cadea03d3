//! Commands with a deadline, whose output is kept and which leave no child behind.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Between two looks at something that is waited for: short against any deadline, long against the cost of looking.
const POLL: Duration = Duration::from_millis(20);

/// The output of a command and how it ended.
#[derive(Debug, Clone, Default)]
pub struct Output {
    /// Both streams as they came, so that an error is in its place.
    pub both: String,
    /// Standard output alone.
    pub stdout: String,
    /// The exit code; none when a signal or the deadline ended it.
    pub code: Option<i32>,
    /// Whether the deadline ended it.
    pub timed_out: bool,
    /// How long it ran.
    pub took: Duration,
}

impl Output {
    /// Whether it ended by itself with code 0.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// Describes how it ended.
    pub fn ending(&self) -> String {
        match (self.timed_out, self.code) {
            (true, _) => format!("stopped at the deadline after {:.0} s", self.took.as_secs_f64()),
            (false, Some(code)) => format!("exit code {code}"),
            (false, None) => "ended by a signal".to_owned(),
        }
    }
}

/// A running command with its own process group, so that the deadline ends its children too.
pub struct Running {
    child: Child,
    started: Instant,
    stdout: Arc<Mutex<Vec<u8>>>,
    both: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    /// Ends a command that a failed test leaves behind.
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            end_group(&mut self.child);
            // It was killed: there is nothing to learn from how it ended.
            let _ = self.child.wait();
        }
    }
}

impl Running {
    /// Starts the command; its input is a pipe when `input` is set, else nothing.
    pub fn start(command: &mut Command, input: bool) -> Result<Running> {
        let input = if input { Stdio::piped() } else { Stdio::null() };
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("start {:?}", command.get_program()))?;
        let (stdout, both) = (Arc::default(), Arc::default());
        let readers = vec![
            collect(child.stdout.take(), vec![Arc::clone(&stdout), Arc::clone(&both)]),
            collect(child.stderr.take(), vec![Arc::clone(&both)]),
        ];
        Ok(Running { child, started: Instant::now(), stdout, both, readers })
    }

    /// Returns what it has written so far, both streams.
    pub fn so_far(&self) -> String {
        text(&self.both)
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Writes to its input.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        use std::io::Write;
        let input = self.child.stdin.as_mut().context("the command has no input")?;
        input.write_all(bytes).and_then(|()| input.flush()).context("write to the command")
    }

    /// Waits until what it has written holds the text; an error when it ends or the time is over first.
    pub fn wait_for(&mut self, expected: &str, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let ended = self.child.try_wait()?;
            let so_far = self.so_far();
            if so_far.contains(expected) {
                return Ok(());
            }
            if let Some(status) = ended {
                anyhow::bail!("expected `{expected}`, but the command ended ({status}) after: {so_far}");
            }
            if Instant::now() > deadline {
                anyhow::bail!("expected `{expected}` within {} s, found: {so_far}", within.as_secs());
            }
            pause(POLL);
        }
    }

    /// Ends it as `kill -9` does and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end, and makes one at the deadline.
    pub fn finish(self, within: Duration) -> Result<Output> {
        let deadline = Instant::now() + within;
        self.finish_unless(|| Instant::now() > deadline)
    }

    /// Waits for the end, and makes one as soon as `is_over` returns true.
    pub fn finish_unless(mut self, mut is_over: impl FnMut() -> bool) -> Result<Output> {
        drop(self.child.stdin.take());
        let mut timed_out = false;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if is_over() {
                timed_out = true;
                end_group(&mut self.child);
                break self.child.wait()?;
            }
            pause(POLL);
        };
        // A daemon that the command leaves behind may hold the pipes: what was written until now is what counts.
        let patience = Instant::now() + Duration::from_millis(500);
        while !self.readers.iter().all(JoinHandle::is_finished) && Instant::now() < patience {
            pause(POLL);
        }
        let (both, stdout) = (text(&self.both), text(&self.stdout));
        Ok(Output { both, stdout, code: status.code().filter(|_| !timed_out), timed_out, took: self.started.elapsed() })
    }
}

/// Runs a command to its end or to the deadline.
pub fn run(command: &mut Command, within: Duration) -> Result<Output> {
    Running::start(command, false)?.finish(within)
}

/// Runs a command to its end, or until `is_over` returns true.
pub fn run_unless(command: &mut Command, is_over: impl FnMut() -> bool) -> Result<Output> {
    Running::start(command, false)?.finish_unless(is_over)
}

#[expect(clippy::disallowed_methods, reason = "between two looks of a poll, on a thread of its own")]
fn pause(time: Duration) {
    // Between two looks of the poll.
    std::thread::sleep(time);
}

/// Polls until the condition holds; false when the time is over.
pub fn eventually(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        pause(POLL * 5);
    }
}

fn end_group(child: &mut Child) {
    let leader = child.id();
    for signal in ["-TERM", "-KILL"] {
        let _ = Command::new("kill").args([signal, "--", &format!("-{leader}")]).stderr(Stdio::null()).status();
        // The leader has to be collected, or its group seems to live on.
        let mut has_ended = || {
            let _ = child.try_wait();
            let probe = Command::new("kill").args(["-0", "--", &format!("-{leader}")]).stderr(Stdio::null()).status();
            !probe.is_ok_and(|status| status.success())
        };
        if eventually(Duration::from_secs(3), &mut has_ended) {
            return;
        }
    }
}

fn collect(stream: Option<impl Read + Send + 'static>, into: Vec<Arc<Mutex<Vec<u8>>>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let Some(mut stream) = stream else { return };
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            for target in &into {
                target.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).extend_from_slice(&buffer[..length]);
            }
        }
    })
}

fn text(bytes: &Arc<Mutex<Vec<u8>>>) -> String {
    String::from_utf8_lossy(&bytes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_code_are_kept() {
        let output = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), Duration::from_secs(10))
            .expect("run");
        assert_eq!((output.stdout.as_str(), output.code), ("out\n", Some(3)));
        assert!(output.both.contains("err"));
    }

    #[test]
    fn the_deadline_ends_children_too() {
        let output =
            run(Command::new("sh").args(["-c", "sleep 600 & echo $!; wait"]), Duration::from_millis(300)).expect("run");
        assert!(output.timed_out && !output.ok());
        let child = format!("/proc/{}", output.stdout.trim());
        assert!(eventually(Duration::from_secs(5), || !std::path::Path::new(&child).exists()), "{child} still runs");
    }

    #[test]
    fn a_conversation_waits_for_text() {
        let mut running = Running::start(Command::new("sh").args(["-c", "read a; echo got $a"]), true).expect("start");
        running.send(b"this\n").expect("send");
        running.wait_for("got this", Duration::from_secs(5)).expect("answer");
        assert!(running.finish(Duration::from_secs(5)).expect("finish").ok());
    }
}
