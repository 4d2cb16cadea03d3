//! The remote end of a connection, and what its requests record about it.

use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;

use crate::object::identity::Identity;

/// The remote end of a connection: an extension of every request from the network.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// The remote address.
    pub address: Option<SocketAddr>,
    /// The certificate chain that TLS has verified, leaf first, as DER; empty without one.
    pub certificates: Arc<[Vec<u8>]>,
    /// The server name in the client's greeting.
    pub server_name: Option<Arc<str>>,
    /// The subject of the leaf, which is parsed once per connection.
    pub(super) subject: Arc<OnceLock<Result<Identity, String>>>,
    connection: Arc<Connection>,
}

/// The facts that requests record about their connection.
#[derive(Debug, Default)]
struct Connection {
    is_known: AtomicBool,
    /// Seconds since 1970; 0 for none.
    end: AtomicI64,
    ending: Mutex<Option<Ending>>,
}

/// A future that ends when the connection has to.
pub(crate) struct Ending(pub(crate) Pin<Box<dyn Future<Output = ()> + Send>>);

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ending")
    }
}

impl Peer {
    /// Returns a peer; unknown values are empty.
    pub fn new(address: Option<SocketAddr>, certificates: Arc<[Vec<u8>]>, server_name: Option<Arc<str>>) -> Self {
        Peer { address, certificates, server_name, ..Peer::default() }
    }

    /// Records that a caller with valid credentials uses the connection.
    pub(crate) fn note_known(&self) {
        self.connection.is_known.store(true, Ordering::Relaxed);
    }

    /// Whether a caller with valid credentials has used the connection.
    pub(crate) fn is_known(&self) -> bool {
        self.connection.is_known.load(Ordering::Relaxed)
    }

    /// Ends the connection with a future, also if a request has taken it over.
    pub(crate) fn end_with(&self, ending: Ending) {
        *self.connection.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
    }

    /// Returns that future, once.
    pub(crate) fn take_ending(&self) -> Option<Ending> {
        self.connection.ending.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Ends the connection at a time, also if a request has taken it over.
    pub(crate) fn end_at(&self, time: Timestamp) {
        self.connection.end.store(time.as_second().max(1), Ordering::Relaxed);
    }

    /// When the connection ends, if that is known.
    pub(crate) fn end(&self) -> Option<Timestamp> {
        let seconds = self.connection.end.load(Ordering::Relaxed);
        (seconds != 0).then(|| Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
    }
}
