//! A client that sends requests all the time: it may have to wait, it must never be refused.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::fixture::{Instance, PATIENCE, pause};

/// Threads that connect to both ports of an instance on both loopback addresses, again and again.
pub struct Knocker {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    counts: Vec<(SocketAddr, Arc<Counts>)>,
}

#[derive(Default)]
struct Counts {
    connected: AtomicU32,
    refused: AtomicU32,
}

impl Knocker {
    /// Starts knocking.
    pub fn start(instance: &Instance) -> Self {
        let (api, https) = instance.ports();
        let stop = Arc::new(AtomicBool::new(false));
        let mut knocker = Self { stop, threads: Vec::new(), counts: Vec::new() };
        for port in [api, https] {
            for address in ["127.0.0.1", "::1"] {
                let target = SocketAddr::new(address.parse().unwrap(), port);
                let counts = Arc::new(Counts::default());
                let (stop, own) = (knocker.stop.clone(), counts.clone());
                knocker.counts.push((target, counts));
                knocker.threads.push(std::thread::spawn(move || knock(target, &stop, &own)));
            }
        }
        knocker
    }

    /// Stops; fails if any connection was refused.
    pub fn never_refused(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        for (target, counts) in self.counts {
            let (connected, refused) =
                (counts.connected.load(Ordering::Relaxed), counts.refused.load(Ordering::Relaxed));
            assert_eq!(refused, 0, "{target} refused {refused} connections and took {connected}");
            assert!(connected > 0, "{target} was never reached");
        }
    }
}

fn knock(target: SocketAddr, stop: &AtomicBool, counts: &Counts) {
    while !stop.load(Ordering::Relaxed) {
        match TcpStream::connect_timeout(&target, Duration::from_secs(30)) {
            Ok(_) => counts.connected.fetch_add(1, Ordering::Relaxed),
            Err(_) => counts.refused.fetch_add(1, Ordering::Relaxed),
        };
        pause();
    }
}

/// Sends a request to the API over TLS with the operator's certificate of the kubeconfig; returns the status code. Waits as long as a
/// patient user.
pub fn ask_api(instance: &Instance, path: &str) -> io::Result<u16> {
    let kubeconfig =
        std::fs::read_to_string(instance.home.path().join(format!(".evroc/{}/kubeconfig", instance.name)))?;
    let field = |name: &str| {
        let line = kubeconfig.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
        decode(line.trim_start_matches(':').trim())
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&field("certificate-authority-data")).unwrap()).unwrap();
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(&field("client-certificate-data")).unwrap()],
            rustls::pki_types::PrivateKeyDer::from_pem_slice(&field("client-key-data")).unwrap(),
        )
        .unwrap();
    let server = ServerName::try_from("127.0.0.1").unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(tls), server).map_err(io::Error::other)?;
    let socket = TcpStream::connect(("127.0.0.1", instance.ports().0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream = rustls::StreamOwned::new(connection, socket);
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut head = [0u8; 12];
    stream.read_exact(&mut head)?;
    String::from_utf8_lossy(&head[9..]).parse().map_err(io::Error::other)
}

/// Base64 without a library: the test shares no code with the product.
fn decode(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0u32;
    let mut count = 0;
    let mut out = Vec::new();
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        bits = bits << 6 | ALPHABET.iter().position(|letter| *letter == byte).unwrap() as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    out
}

/// The mode bits of a file.
pub fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
