//! Connecting to what listens inside a network namespace.
//!
//! A socket belongs for good to the namespace of the thread that made it; connecting and all traffic can then be done from anywhere. So one
//! dedicated thread enters namespaces and makes sockets, and does nothing else: no tokio worker ever changes its namespace, and a slow
//! connect delays no other.

pub mod server;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;

use crate::net::netns::Netns;

struct Job {
    netns: Arc<Netns>,
    family: AddressFamily,
    reply: oneshot::Sender<io::Result<OwnedFd>>,
}

/// Connects into network namespaces. Cheap to clone; the thread behind it ends with the last clone.
#[derive(Clone)]
pub struct Dialer {
    jobs: mpsc::Sender<Job>,
}

impl Dialer {
    /// Starts the thread that makes sockets.
    pub fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let home = Netns::current().map_err(io::Error::other)?;
        std::thread::Builder::new().name("netns-sockets".into()).spawn(move || {
            for job in queue {
                let socket = make_socket(&job.netns, job.family);
                // A thread that stayed would keep a removed namespace alive.
                let left = home.enter_for_good();
                // The caller may have given up meanwhile.
                let _ = job.reply.send(left.map_err(io::Error::other).and(socket));
            }
        })?;
        Ok(Self { jobs })
    }

    /// Opens a TCP connection to `address` as seen inside `netns`. Waits as long as the kernel tries: set a deadline.
    pub async fn connect(&self, netns: &Arc<Netns>, address: SocketAddr) -> io::Result<TcpStream> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let (reply, answer) = oneshot::channel();
        let ended = |_| io::Error::other("the thread that makes sockets has ended");
        self.jobs.send(Job { netns: netns.clone(), family, reply }).map_err(|_| ended(()))?;
        let socket = answer.await.map_err(|_| ended(()))??;
        let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

fn make_socket(netns: &Netns, family: AddressFamily) -> io::Result<OwnedFd> {
    netns.enter_for_good().map_err(io::Error::other)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
