//! etcd alone: puts of values as big as the objects, over one gRPC connection for each client.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::{Buf, BufMut, Bytes};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::load::{Outcome, percentile};

/// Messages as raw bytes: a put is two fields, and the response is not read.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = ();
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        from.advance(from.remaining());
        Ok(Some(()))
    }
}

/// `PutRequest { key = 1, value = 2 }` of etcd's rpc.proto.
fn put(key: &str, value: &[u8]) -> Bytes {
    let mut message = Vec::new();
    for (tag, content) in [(0x0a, key.as_bytes()), (0x12, value)] {
        message.push(tag);
        let mut length = content.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or_default());
        message.extend_from_slice(content);
    }
    message.into()
}

/// Starts an etcd of its own on the servers' core, has it take puts for `time`, and ends it.
pub async fn measure(folder: &Path, clients: usize, value_bytes: usize, time: Duration) -> Result<Outcome> {
    let state = tempfile::tempdir()?;
    let (port, peer) = (free_port()?, free_port()?);
    let address = format!("http://127.0.0.1:{port}");
    let peer = format!("http://127.0.0.1:{peer}");
    let mut etcd = Command::new("taskset")
        .args(["-c", "0"])
        .arg(folder.join("etcd"))
        .arg("--data-dir")
        .arg(state.path())
        .args(["--listen-client-urls", &address, "--advertise-client-urls", &address])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start etcd")?;
    let outcome = puts(&address, clients, value_bytes, time).await;
    etcd.kill()?;
    etcd.wait()?;
    outcome
}

async fn puts(address: &str, clients: usize, value_bytes: usize, time: Duration) -> Result<Outcome> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut channels: Vec<Channel> = Vec::new();
    while channels.len() < clients {
        match Channel::from_shared(address.to_owned())?.connect().await {
            Ok(channel) => channels.push(channel),
            Err(error) => {
                anyhow::ensure!(Instant::now() < deadline, "etcd is not ready within 30 s: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (client, channel) in channels.into_iter().enumerate() {
        let value = vec![b'x'; value_bytes];
        tasks.spawn(async move {
            let mut grpc = tonic::client::Grpc::new(channel);
            let mut times = Vec::new();
            while started.elapsed() < time {
                let sent = Instant::now();
                grpc.ready().await?;
                let path = http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Put");
                let message = put(&format!("/bench/{client}/{}", times.len()), &value);
                grpc.unary(Request::new(message), path, Raw).await?;
                times.push(sent.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    times.sort_unstable();
    let took = started.elapsed().as_secs_f64();
    Ok(Outcome { per_second: times.len() as f64 / took, p99: percentile(&times, 99), count: times.len() })
}

fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_two_fields_with_their_lengths() {
        assert_eq!(put("k", b"v"), Bytes::from_static(b"\x0a\x01k\x12\x01v"));
        assert_eq!(&put("k", &[7; 300])[..6], b"\x0a\x01k\x12\xac\x02");
    }
}
