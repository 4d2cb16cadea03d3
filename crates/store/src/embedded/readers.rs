//! Connections for reading. They see the database as of the begin of their transaction and never wait for the writer.

use std::path::PathBuf;
use std::sync::Mutex;

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::database::connect_reader;
use super::lock;
use crate::contract::Result;
use crate::error::StoreError;

/// A pool of connections, which are opened on first use and kept.
pub(super) struct Readers {
    path: PathBuf,
    /// `None` once the store is closed.
    idle: Mutex<Option<Vec<Connection>>>,
    permits: Semaphore,
}

impl Readers {
    pub fn new(path: PathBuf, connections: usize) -> Self {
        Readers { path, idle: Mutex::new(Some(Vec::new())), permits: Semaphore::new(connections) }
    }

    /// Runs `read` on a connection, in a blocking thread.
    pub async fn run<T: Send + 'static>(
        self: &std::sync::Arc<Self>,
        read: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _permit = self.permits.acquire().await.map_err(|_| StoreError::Closed)?;
        let readers = self.clone();
        tokio::task::spawn_blocking(move || {
            let conn = readers.take()?;
            let result = read(&conn);
            if let Some(idle) = lock(&readers.idle).as_mut() {
                idle.push(conn);
            }
            result
        })
        .await
        .map_err(|source| StoreError::backend("read", source))?
    }

    fn take(&self) -> Result<Connection> {
        match lock(&self.idle).as_mut() {
            None => return Err(StoreError::Closed),
            Some(idle) => {
                if let Some(conn) = idle.pop() {
                    return Ok(conn);
                }
            }
        }
        connect_reader(&self.path).map_err(|source| StoreError::backend("open for reading", source))
    }

    /// Closes idle connections now, and the others when they finish.
    pub fn close(&self) {
        self.permits.close();
        lock(&self.idle).take();
    }
}
