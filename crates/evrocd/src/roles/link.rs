//! The protocol between supervisor and role: one JSON object per line, on a socket pair created when the role starts.
//!
//! ```text
//! role ──► supervisor   {"type":"ready"} {"type":"progress","message":…} {"type":"drained","stopped":2,"killed":0}
//!                       {"type":"certificatesLoaded","number":3}
//! role ◄── supervisor   {"type":"drain","timeoutSeconds":60} {"type":"reopenLog"} {"type":"loadCertificates","number":3}
//! ```
//! A line that one side does not know is skipped: after an upgrade the two may be of different versions for a moment.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// From role to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum Report {
    /// At work.
    Ready,
    /// The current activity, for waiting clients: `stopping 2 virtual machines`.
    Progress {
        /// One line.
        message: String,
    },
    /// Answer to [`Command::Drain`]: nothing of the instance's workloads runs any more.
    Drained {
        /// How many ended in time.
        stopped: u32,
        /// How many had to be killed.
        killed: u32,
    },
    /// Answer to [`Command::LoadCertificates`].
    CertificatesLoaded {
        /// The number of the command.
        number: u64,
        /// Why some could not be loaded; the role goes on with those that it has.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// From supervisor to role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
pub enum Command {
    /// Node: start nothing new, stop every guest and container gracefully, kill the rest at the deadline, answer [`Report::Drained`].
    /// Must not need control. Stopped workloads are started again by the next ordinary start.
    Drain {
        /// How long guests get.
        timeout_seconds: u64,
    },
    /// The log file was renamed: reopen the path. Handled by the link itself.
    ReopenLog,
    /// Certificates, keys or the list of trusted authorities were replaced: read them again, and answer [`Report::CertificatesLoaded`].
    /// Handled by the link itself.
    LoadCertificates {
        /// Distinguishes the answers.
        number: u64,
    },
}

/// Reads the lines of `stream` into `commands` and writes `reports` to it, until the other side ends. For roles.
pub async fn serve(
    stream: UnixStream,
    mut reports: mpsc::Receiver<Report>,
    commands: mpsc::Sender<Command>,
    reopen_log: impl Fn() -> io::Result<()>,
    load_certificates: impl Fn() -> anyhow::Result<()>,
) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    loop {
        tokio::select! {
            read = lines.next_line() => match read {
                Ok(Some(text)) => match serde_json::from_str(&text) {
                    Ok(Command::ReopenLog) => {
                        if let Err(error) = reopen_log() {
                            tracing::warn!(%error, "cannot reopen the log file");
                        }
                    }
                    Ok(Command::LoadCertificates { number }) => {
                        let error = load_certificates().err().map(|error| format!("{error:#}"));
                        match &error {
                            None => tracing::info!("loaded certificates that were replaced"),
                            Some(error) => tracing::error!(error, "cannot load certificates that were replaced"),
                        }
                        let answer = line(&Report::CertificatesLoaded { number, error });
                        if write.write_all(answer.as_bytes()).await.is_err() {
                            break;
                        }
                    }
                    Ok(command) => drop(commands.send(command).await),
                    Err(_) => tracing::warn!(line = text, "skipped a line of the supervisor's"),
                },
                Ok(None) | Err(_) => break,
            },
            Some(report) = reports.recv() => {
                if write.write_all(line(&report).as_bytes()).await.is_err() {
                    break;
                }
            }
        }
    }
    tracing::warn!("the supervisor has ended; this role goes on until a new one takes over");
    // Reports without a reader must not fill up the queue and block.
    while reports.recv().await.is_some() {}
}

/// One message as a line.
pub fn line(message: &impl Serialize) -> String {
    let mut text = serde_json::to_string(message).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_on_the_wire_is_fixed() {
        assert_eq!(line(&Report::Ready), "{\"type\":\"ready\"}\n");
        assert_eq!(line(&Command::Drain { timeout_seconds: 60 }), "{\"type\":\"drain\",\"timeoutSeconds\":60}\n");
        assert_eq!(line(&Command::ReopenLog), "{\"type\":\"reopenLog\"}\n");
        assert_eq!(
            line(&Report::Drained { stopped: 1, killed: 0 }),
            "{\"type\":\"drained\",\"stopped\":1,\"killed\":0}\n"
        );
    }

    #[tokio::test]
    async fn both_ways_work_and_the_end_is_no_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (reports, queue) = mpsc::channel(4);
        let (commands, mut received) = mpsc::channel(4);
        let reopened = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = reopened.clone();
        let reopen = move || {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(())
        };
        let task = tokio::spawn(serve(theirs, queue, commands, reopen, || anyhow::bail!("there are none")));
        let (read, mut write) = ours.into_split();
        let mut lines = BufReader::new(read).lines();
        reports.send(Report::Ready).await.unwrap();
        assert_eq!(lines.next_line().await.unwrap().unwrap(), "{\"type\":\"ready\"}");
        write
            .write_all(
                b"{\"type\":\"unheard-of\"}\n{\"type\":\"reopenLog\"}\n{\"type\":\"drain\",\"timeoutSeconds\":1}\n",
            )
            .await
            .unwrap();
        assert_eq!(received.recv().await, Some(Command::Drain { timeout_seconds: 1 }));
        assert_eq!(reopened.load(std::sync::atomic::Ordering::SeqCst), 1);
        write.write_all(b"{\"type\":\"loadCertificates\",\"number\":3}\n").await.unwrap();
        let answer = Report::CertificatesLoaded { number: 3, error: Some("there are none".into()) };
        assert_eq!(format!("{}\n", lines.next_line().await.unwrap().unwrap()), line(&answer));
        drop((write, lines));
        for _ in 0..100 {
            reports.send(Report::Ready).await.unwrap();
        }
        drop(reports);
        task.await.unwrap();
    }
}
