//! A container that runs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::ContainerError;
use crate::dial::Dialer;
use crate::net::netns::Netns;
use crate::shim::{Exit, ShimClient};

/// First pause between two tries to connect to a starting container; doubled up to [`MAX_READY_PAUSE`].
const MIN_READY_PAUSE: Duration = Duration::from_millis(1);
/// Higher makes slow starters wait longer than needed; lower burns processor time while they start.
const MAX_READY_PAUSE: Duration = Duration::from_millis(20);

/// A process that got SIGKILL ends at once unless it is stuck in the kernel.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// A running container. Cheap to clone.
#[derive(Clone)]
pub struct Container {
    pub(super) shim: ShimClient,
    pub(super) netns: Arc<Netns>,
    pub(super) dialer: Dialer,
    pub(super) stop_signal: i32,
}

impl std::fmt::Debug for Container {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Container").field("shim", self.shim.record()).finish_non_exhaustive()
    }
}

impl Container {
    /// Its shim: attach, signal, status.
    pub fn shim(&self) -> &ShimClient {
        &self.shim
    }

    /// Waits until it has ended.
    pub async fn wait(&self) -> Result<Exit, ContainerError> {
        Ok(self.shim.wait().await?)
    }

    /// Opens a TCP connection to a port inside it.
    pub async fn connect(&self, port: u16) -> io::Result<tokio::net::TcpStream> {
        self.dialer.connect(&self.netns, SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await
    }

    /// Waits until `port` accepts connections; [`ContainerError::Ended`] if the container ends before. Set a deadline.
    pub async fn wait_ready(&self, port: u16) -> Result<(), ContainerError> {
        let ready = async {
            let mut pause = MIN_READY_PAUSE;
            while self.connect(port).await.is_err() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(MAX_READY_PAUSE);
            }
        };
        tokio::select! {
            () = ready => Ok(()),
            exit = self.wait() => Err(ContainerError::Ended(Box::new(exit?))),
        }
    }

    /// Sends its image's STOPSIGNAL, and kills it after `grace`.
    pub async fn stop(&self, grace: Duration) -> Result<Exit, ContainerError> {
        if let Err(error) = self.shim.signal(self.stop_signal).await {
            // It may be ending by itself; the wait finds out.
            tracing::debug!(%error, "signal a container");
        }
        match tokio::time::timeout(grace, self.wait()).await {
            Ok(exit) => exit,
            Err(_) => kill(&self.shim, &self.shim.record().id).await,
        }
    }
}

/// Kills by the shim: while the container is being created, that reaches the runtime's own processes.
pub(super) async fn kill(shim: &ShimClient, id: &str) -> Result<Exit, ContainerError> {
    if let Err(error) = shim.signal(libc::SIGKILL).await {
        tracing::debug!(%error, "kill a container");
    }
    match tokio::time::timeout(KILL_DEADLINE, shim.wait()).await {
        Ok(exit) => Ok(exit?),
        Err(_) => Err(ContainerError::CannotEnd { id: id.to_owned() }),
    }
}
