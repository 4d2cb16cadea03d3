//! A client of QMP, QEMU's machine protocol: JSON lines on a unix socket; commands are matched to answers by id, events come in
//! between.
//!
//! QEMU serves one client at a time and lets others wait in the listen queue, so there is one connection for each guest, and
//! [`Qmp::connect`] has a deadline. Dropping every clone of [`Qmp`] closes the connection.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, oneshot, watch};

use crate::driver::MonitorError;
pub use crate::event::Event;

/// How long a command may take. QEMU answers at once but for block jobs on a stuck disk; waiting longer would stall the agent,
/// waiting shorter fails under TCG on a busy host.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(20);
/// Events kept for a listener that is slow; after that it misses the oldest.
const EVENT_QUEUE: usize = 256;

/// A connection.
#[derive(Clone, Debug)]
pub struct Qmp {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    pending: Pending,
    next_id: AtomicU64,
    events: broadcast::Sender<Event>,
    closed: watch::Receiver<bool>,
    reader: tokio::task::JoinHandle<()>,
}

type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

impl Drop for Shared {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Qmp {
    /// Connects, reads the greeting and leaves negotiation mode, all within `limit`.
    pub async fn connect(socket: &Path, limit: Duration) -> Result<Self, MonitorError> {
        let failed = |source| MonitorError::Connect { socket: socket.to_owned(), source };
        let handshake = async {
            let stream = UnixStream::connect(socket).await.map_err(failed)?;
            let (reader, writer) = stream.into_split();
            let mut reader = BufReader::new(reader);
            let mut line = String::new();
            reader.read_line(&mut line).await.map_err(failed)?;
            let is_greeting = serde_json::from_str::<Value>(&line).is_ok_and(|greeting| greeting.get("QMP").is_some());
            if !is_greeting {
                let found = line.trim_end().to_owned();
                return Err(MonitorError::Answer { command: "connect".into(), expected: "a QMP greeting", found });
            }
            let qmp = Self::start(reader, writer);
            qmp.execute("qmp_capabilities", Value::Null).await?;
            Ok(qmp)
        };
        let late = |_| MonitorError::Late { command: "connect".into(), limit };
        tokio::time::timeout(limit, handshake).await.map_err(late)?
    }

    fn start(reader: BufReader<OwnedReadHalf>, writer: OwnedWriteHalf) -> Self {
        let (events, _) = broadcast::channel(EVENT_QUEUE);
        let (is_closed, closed) = watch::channel(false);
        let pending = Pending::default();
        let reader = tokio::spawn({
            let (events, pending) = (events.clone(), pending.clone());
            async move {
                read_lines(reader, &events, &pending).await;
                // Senders first: a caller that waits for an answer must not wait for its limit.
                lock(&pending).clear();
                let _ = is_closed.send(true);
            }
        });
        let writer = tokio::sync::Mutex::new(writer);
        Self { shared: Arc::new(Shared { writer, pending, next_id: AtomicU64::new(1), events, closed, reader }) }
    }

    /// Executes a command and returns its `return` value.
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, MonitorError> {
        self.execute_with(command, arguments, None).await
    }

    /// Gives QEMU a descriptor, which it opens as `/dev/fdset/<number>`; returns the number. `opaque` names it for [`Self::remove_files`].
    pub async fn add_file(&self, file: BorrowedFd<'_>, opaque: &str) -> Result<u64, MonitorError> {
        let answer = self.execute_with("add-fd", json!({ "opaque": opaque }), Some(file)).await?;
        let expected = "the number of a set of descriptors";
        let number = answer.get("fdset-id").and_then(Value::as_u64);
        number.ok_or_else(|| MonitorError::Answer { command: "add-fd".into(), expected, found: answer.to_string() })
    }

    /// Takes back all descriptors that were given under a name. What QEMU has open stays open.
    pub async fn remove_files(&self, opaque: &str) -> Result<(), MonitorError> {
        let sets = self.execute("query-fdsets", Value::Null).await?;
        let is_named =
            |set: &&Value| set["fds"].as_array().is_some_and(|fds| fds.iter().any(|fd| fd["opaque"] == opaque));
        for set in sets.as_array().into_iter().flatten().filter(is_named) {
            self.execute("remove-fd", json!({ "fdset-id": set["fdset-id"] })).await?;
        }
        Ok(())
    }

    async fn execute_with(
        &self,
        command: &str,
        arguments: Value,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<Value, MonitorError> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        let mut message = json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            message["arguments"] = arguments;
        }
        let mut line = message.to_string();
        line.push('\n');
        let (sender, receiver) = oneshot::channel();
        lock(&self.shared.pending).insert(id, sender);
        let exchange = async {
            let closed = || MonitorError::Closed { command: command.to_owned() };
            // Inserted after the reader had cleared the table: no answer would come.
            if *self.shared.closed.borrow() {
                return Err(closed());
            }
            self.write(line.as_bytes(), file).await.map_err(|_| closed())?;
            receiver.await.map_err(|_| closed())
        };
        let outcome = tokio::time::timeout(COMMAND_LIMIT, exchange).await;
        lock(&self.shared.pending).remove(&id);
        let mut answer =
            outcome.map_err(|_| MonitorError::Late { command: command.to_owned(), limit: COMMAND_LIMIT })??;
        if let Some(error) = answer.get("error") {
            let text = |name| error.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (class, description) = (text("class"), text("desc"));
            return Err(MonitorError::Refused { command: command.to_owned(), class, description });
        }
        Ok(answer.get_mut("return").map(Value::take).unwrap_or_default())
    }

    async fn write(&self, line: &[u8], file: Option<BorrowedFd<'_>>) -> std::io::Result<()> {
        let mut writer = self.shared.writer.lock().await;
        let sent = match file {
            Some(file) => send_with(writer.as_ref(), line, file).await?,
            None => 0,
        };
        writer.write_all(&line[sent..]).await
    }

    /// Events from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Returns when QEMU has closed the connection.
    pub async fn closed(&self) {
        let mut closed = self.shared.closed.clone();
        // An error means that the reader has ended, which is the same.
        let _ = closed.wait_for(|is_closed| *is_closed).await;
    }
}

/// Sends the beginning of a line together with a descriptor; returns how much was sent.
async fn send_with(stream: &UnixStream, line: &[u8], file: BorrowedFd<'_>) -> std::io::Result<usize> {
    let files = [file];
    stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !control.push(SendAncillaryMessage::ScmRights(&files)) {
                return Err(std::io::Error::other("no room for one descriptor"));
            }
            Ok(sendmsg(stream, &[std::io::IoSlice::new(line)], &mut control, SendFlags::NOSIGNAL)?)
        })
        .await
}

async fn read_lines(mut reader: BufReader<OwnedReadHalf>, events: &broadcast::Sender<Event>, pending: &Pending) {
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let Ok(message) = serde_json::from_slice::<Value>(&line) else {
            tracing::warn!(line = %String::from_utf8_lossy(&line), "QMP line is not JSON");
            continue;
        };
        if let Some(id) = message.get("id").and_then(Value::as_u64) {
            if let Some(sender) = lock(pending).remove(&id) {
                let _ = sender.send(message);
            }
        } else if let Ok(event) = serde_json::from_value::<Event>(message) {
            let _ = events.send(event);
        }
    }
}

fn lock(pending: &Pending) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Value>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREETING: &str =
        r#"{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}}, "capabilities": ["oob"]}}"#;

    /// A QEMU that answers each line with what `answer` gives, or hangs up on `None`.
    async fn fake(answer: impl Fn(Value) -> Option<String> + Send + 'static) -> (tempfile::TempDir, Qmp) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qmp");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let (reader, mut writer) = stream.into_split();
            writer.write_all(format!("{GREETING}\r\n").as_bytes()).await.unwrap();
            let mut lines = BufReader::new(reader).lines();
            while let Some(line) = lines.next_line().await.unwrap() {
                let message: Value = serde_json::from_str(&line).unwrap();
                let id = message["id"].clone();
                let text = match message["execute"].as_str() {
                    Some("qmp_capabilities") => Some(json!({ "return": {}, "id": id }).to_string()),
                    _ => answer(message),
                };
                let Some(text) = text else { return };
                writer.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
            }
        });
        let qmp = Qmp::connect(&socket, Duration::from_secs(5)).await.unwrap();
        (dir, qmp)
    }

    #[tokio::test]
    async fn answers_find_their_commands_and_events_their_listeners() {
        let answer = |message: Value| {
            let event = json!({ "event": "RESET", "data": { "guest": true }, "timestamp": {} });
            let answer = json!({ "id": message["id"], "return": { "you": message["arguments"]["n"] } });
            Some(format!("{event}\r\n{answer}"))
        };
        let (_dir, qmp) = fake(answer).await;
        let mut events = qmp.events();
        let many = (0..20).map(|n| {
            let qmp = qmp.clone();
            async move { qmp.execute("echo", json!({ "n": n })).await.unwrap()["you"].as_i64() }
        });
        let answers = futures::future::join_all(many).await;
        assert_eq!(answers, (0..20).map(Some).collect::<Vec<_>>());
        assert_eq!(events.recv().await.unwrap().name, "RESET");
    }

    #[tokio::test]
    async fn a_refusal_names_the_command_and_the_reason() {
        let answer = |message: Value| {
            Some(
                json!({ "id": message["id"], "error": { "class": "DeviceNotFound", "desc": "no such disk" } })
                    .to_string(),
            )
        };
        let (_dir, qmp) = fake(answer).await;
        let error = qmp.execute("block_resize", Value::Null).await.unwrap_err();
        assert_eq!(error.to_string(), "block_resize: DeviceNotFound: no such disk");
    }

    #[tokio::test]
    async fn a_hang_up_fails_what_waits_and_what_comes_later() {
        let (_dir, qmp) = fake(|_| None).await;
        assert!(matches!(qmp.execute("quit", Value::Null).await, Err(MonitorError::Closed { .. })));
        qmp.closed().await;
        assert!(matches!(qmp.execute("quit", Value::Null).await, Err(MonitorError::Closed { .. })));
    }

    #[tokio::test]
    async fn a_silent_monitor_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("qmp");
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let error = Qmp::connect(&socket, Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.to_string(), "connect: no answer within 20ms");
    }
}
