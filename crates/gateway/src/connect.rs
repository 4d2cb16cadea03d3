//! Connections to replicas: made by a process that can enter their network, kept while they are good.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::table::Replica;
use crate::time;

/// A connection's two directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to a port of a replica, wherever it runs.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// Connects; the error names the attempts.
    async fn dial(&self, replica_uid: &str, port: u16) -> io::Result<Box<dyn Stream>>;
}

/// The body of a request on its way to a replica.
pub type RequestBody = BoxBody<Bytes, hyper::Error>;

/// One connection that can carry a request now.
pub enum Connection {
    /// HTTP/1.1: one request at a time.
    One(http1::SendRequest<RequestBody>),
    /// HTTP/2 with prior knowledge, for gRPC: many requests at a time.
    Two(http2::SendRequest<RequestBody>),
}

/// Idle connections by replica. At most this many are kept for each, else a burst would leave its sockets for ever.
const KEPT_PER_REPLICA: usize = 64;
/// How long an idle connection is kept. Too low dials for every request; too high meets servers that close it at that very
/// moment (common ones do after 5 s), and occupies those that serve one connection at a time.
pub(crate) const KEPT_FOR: Duration = Duration::from_secs(2);
/// The longest that connecting may take in all.
const DIAL: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Kept {
    one: Vec<(http1::SendRequest<RequestBody>, Instant)>,
    two: Option<http2::SendRequest<RequestBody>>,
}

#[derive(Default)]
struct State {
    kept: HashMap<String, Kept>,
    sweeping: bool,
}

/// The connections of a gateway.
pub struct Pool {
    dial: Arc<dyn Dial>,
    state: Mutex<State>,
}

impl Pool {
    /// An empty pool that connects through `dial`.
    pub fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A kept connection that is still open.
    pub fn kept(&self, replica: &Replica, http2: bool) -> Option<Connection> {
        let mut state = self.state();
        let kept = state.kept.get_mut(&replica.uid)?;
        if http2 {
            kept.two = kept.two.take().filter(http2::SendRequest::is_ready);
            return kept.two.clone().map(Connection::Two);
        }
        while let Some((connection, since)) = kept.one.pop() {
            if connection.is_ready() && time::now() - since < KEPT_FOR {
                return Some(Connection::One(connection));
            }
        }
        None
    }

    /// A new connection.
    pub async fn connect(&self, replica: &Replica, http2: bool) -> io::Result<Connection> {
        let dialled = time::timeout(DIAL, self.dial.dial(&replica.uid, replica.port)).await;
        let stream = TokioIo::new(dialled.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer"))??);
        if http2 {
            let builder = http2::Builder::new(TokioExecutor::new());
            let (sender, connection) = builder.handshake(stream).await.map_err(io::Error::other)?;
            tokio::spawn(log_end(connection));
            self.state().kept.entry(replica.uid.clone()).or_default().two = Some(sender.clone());
            Ok(Connection::Two(sender))
        } else {
            let (sender, connection) = http1::Builder::new().handshake(stream).await.map_err(io::Error::other)?;
            tokio::spawn(log_end(connection.with_upgrades()));
            Ok(Connection::One(sender))
        }
    }

    /// Gives a connection back once its response has been read whole. It can be used again when its request has been sent
    /// whole too.
    pub fn keep(self: &Arc<Self>, replica_uid: String, mut connection: http1::SendRequest<RequestBody>) {
        if connection.is_ready() {
            self.put(replica_uid, connection);
        } else if !connection.is_closed() {
            let pool = self.clone();
            tokio::spawn(async move {
                if connection.ready().await.is_ok() {
                    pool.put(replica_uid, connection);
                }
            });
        }
    }

    fn put(self: &Arc<Self>, replica_uid: String, connection: http1::SendRequest<RequestBody>) {
        let mut state = self.state();
        let kept = state.kept.entry(replica_uid).or_default();
        if kept.one.len() < KEPT_PER_REPLICA {
            kept.one.push((connection, time::now()));
        }
        if !std::mem::replace(&mut state.sweeping, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Closes connections to replicas that no longer exist.
    pub fn forget_all_but(&self, uids: &HashSet<String>) {
        self.state().kept.retain(|uid, _| uids.contains(uid));
    }
}

/// Closes connections that were idle for too long, until none is left.
async fn sweep(pool: Weak<Pool>) {
    loop {
        time::sleep(KEPT_FOR).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut state = pool.state();
        state.kept.retain(|_, kept| {
            kept.one.retain(|(connection, since)| time::now() - *since < KEPT_FOR && !connection.is_closed());
            kept.two = kept.two.take().filter(|connection| !connection.is_closed());
            !kept.one.is_empty() || kept.two.is_some()
        });
        if state.kept.values().all(|kept| kept.one.is_empty()) {
            state.sweeping = false;
            return;
        }
    }
}

async fn log_end(connection: impl Future<Output = hyper::Result<()>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection to a replica ended");
    }
}

/// On one host the node opens connections inside a replica's network and hands them over.
#[async_trait]
impl Dial for crate::dial::DialClient {
    async fn dial(&self, replica_uid: &str, port: u16) -> io::Result<Box<dyn Stream>> {
        let stream = crate::dial::DialClient::dial(self, replica_uid, port).await.map_err(io::Error::other)?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}
