//! Connections to replicas: made by whoever can enter their network, kept while they are good.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::table::Replica;

/// A connection's two directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Connects to a port of a replica, wherever it runs.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// Connects; the error says what was tried.
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

/// Idle connections by replica. At most so many are kept for each, else a burst would leave its sockets for ever.
const KEPT_PER_REPLICA: usize = 64;

#[derive(Default)]
struct Kept {
    one: Vec<http1::SendRequest<RequestBody>>,
    two: Option<http2::SendRequest<RequestBody>>,
}

/// The connections of a gateway.
pub struct Pool {
    dial: Arc<dyn Dial>,
    kept: Mutex<HashMap<String, Kept>>,
}

impl Pool {
    /// An empty pool that connects through `dial`.
    pub fn new(dial: Arc<dyn Dial>) -> Self {
        Self { dial, kept: Mutex::default() }
    }

    fn with<R>(&self, uid: &str, f: impl FnOnce(&mut Kept) -> R) -> R {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        f(kept.entry(uid.to_owned()).or_default())
    }

    /// A kept connection that still stands, else a new one.
    pub async fn take(&self, replica: &Replica, http2: bool) -> io::Result<Connection> {
        if http2 {
            let kept = self.with(&replica.uid, |kept| kept.two.clone().filter(|c| c.is_ready() && !c.is_closed()));
            if let Some(connection) = kept {
                return Ok(Connection::Two(connection));
            }
        } else {
            while let Some(connection) = self.with(&replica.uid, |kept| kept.one.pop()) {
                if connection.is_ready() {
                    return Ok(Connection::One(connection));
                }
            }
        }
        let stream = TokioIo::new(self.dial.dial(&replica.uid, replica.port).await?);
        if http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new()).handshake(stream).await.map_err(io::Error::other)?;
            tokio::spawn(log_end(connection));
            self.with(&replica.uid, |kept| kept.two = Some(sender.clone()));
            Ok(Connection::Two(sender))
        } else {
            let (sender, connection) = http1::Builder::new().handshake(stream).await.map_err(io::Error::other)?;
            tokio::spawn(log_end(connection.with_upgrades()));
            Ok(Connection::One(sender))
        }
    }

    /// Gives a connection back once its response has been read whole.
    pub fn keep(&self, replica_uid: &str, connection: Connection) {
        if let Connection::One(connection) = connection
            && !connection.is_closed()
        {
            self.with(replica_uid, |kept| if kept.one.len() < KEPT_PER_REPLICA { kept.one.push(connection) });
        }
    }

    /// Closes what is kept for replicas that are gone.
    pub fn forget_all_but(&self, uids: &[String]) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| uids.contains(uid));
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
