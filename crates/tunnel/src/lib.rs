//! The tunnel from a host to control, over which the API opens streams (consoles, connections, logs) to what runs on the host.
//!
//! ```text
//! node ── TCP, mTLS ── GET …/hosts/<host>/tunnel, Upgrade: evroc-tunnel ──► control
//! node ◄─ 101 ──────────────────────────────────────────────────────────── control
//! node ◄═ HTTP/2 with the roles turned round: control calls, node answers ═► control
//! ```
//! The gateway opens a tunnel of the same form (`…/hosts/<host>/edgetunnel`), through which it serves its metrics and nothing else.
//!
//! The node opens the only connection, so hosts need no open port. That also authenticates requests: only control is at the other end,
//! and it has authorised the user.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/dial`, `X-Evroc-Target: machine/<uid>:<port>` | both bodies are the connection's two directions |
//! | `POST /v1/machines/<uid>/console` | the same for the serial console |
//! | `POST /v1/machines/<uid>/actions/<pause, resume, reset or force-stop>` | empty, when it is done |
//! | `GET /v1/services/<namespace>/<service>/log?follow=true&tailLines=N` | the output of all its replicas on this host; continues when followed; `X-Evroc-Log-Written` says how many bytes of it had been written before |
//! | `GET /v1/machines/<uid>/serial-log?tailBytes=N` | bytes |
//! | `GET /v1/virtual-machines/<uid>/previous-serial-log?tailBytes=N` | bytes of the run before the present one |
//! | `GET /v1/metrics` | the OpenMetrics text of the process |
//!
//! The directions of a connection end one by one: the end of a request's body is passed on to what is dialled, and the end of what it
//! sends ends the answer's body while the request's goes on. A reset, or dropping the answer before its end, ends both.
//!
//! A refusal is a status with `{"message": …}`. [`protocol`] has what both ends agree on; the host's end is [`keep_connected`] with a
//! [`TunnelHandler`], control's end is [`Tunnels`].

mod connect;
pub mod protocol;
mod serve;
mod tunnels;

#[cfg(test)]
mod tests;

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite};

pub use connect::{ConnectError, TunnelConfig, keep_connected};
pub use protocol::{LogOptions, MachineAction, TunnelKind};
pub use serve::serve_connection;
pub use tunnels::{LogAnswer, TunnelError, TunnelStream, Tunnels};

/// Bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Bytes in both directions, of any kind.
pub type BoxDuplex = Box<dyn Duplex>;

/// Bytes towards the user.
pub type BoxBytes = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// The output of a service on one host.
pub struct HostLog {
    /// The output up to the request, in the order of time.
    pub written: Bytes,
    /// The output after that, as it comes; absent if the log is not followed.
    pub follow: Option<BoxBytes>,
}

/// The reason why a stream is refused, for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The HTTP status, for programs: 404 not here, 409 not in this state, 502 nothing listens, 504 no answer.
    pub status: StatusCode,
    /// One sentence.
    pub message: String,
}

impl Refusal {
    /// A refusal with this message.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

/// The streams that a host can open.
#[async_trait]
pub trait TunnelHandler: Send + Sync + 'static {
    /// A TCP connection to a port of a machine.
    async fn dial_machine(&self, uid: &str, port: u16) -> Result<BoxDuplex, Refusal>;
    /// The serial console of a machine; the first bytes are its last output.
    async fn console(&self, uid: &str) -> Result<BoxDuplex, Refusal>;
    /// Does something with a running machine; returns when it is done.
    async fn act(&self, uid: &str, action: MachineAction) -> Result<(), Refusal>;
    /// The output of the replicas of a service on this host, including those that have ended.
    async fn service_log(&self, namespace: &str, service: &str, options: LogOptions) -> Result<HostLog, Refusal>;
    /// Returns the end of a machine's output on its serial console.
    async fn serial_log(&self, uid: &str, tail_bytes: u64) -> Result<BoxBytes, Refusal>;
    /// Returns the same for the previous run of a virtual machine, by the uid of the latter.
    async fn previous_serial_log(&self, virtual_machine_uid: &str, tail_bytes: u64) -> Result<BoxBytes, Refusal>;
    /// The OpenMetrics text of this process.
    async fn metrics(&self) -> Result<Bytes, Refusal>;
}
