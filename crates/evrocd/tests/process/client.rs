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

/// A connection to the API with the operator's certificate.
pub type Connection = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

/// Sends a request to the API over TLS with the operator's certificate of the kubeconfig; returns the status code. Waits as long as a
/// patient user.
pub fn ask_api(instance: &Instance, path: &str) -> io::Result<u16> {
    status(&mut begin(instance, path)?)
}

/// Sends a request to the API and leaves the answer to the caller.
pub fn begin(instance: &Instance, path: &str) -> io::Result<Connection> {
    request(&instance.kubeconfig(), instance.ports().0, "GET", path)
}

/// Sends a request with the certificates of any kubeconfig.
pub fn request(kubeconfig: &str, port: u16, method: &str, path: &str) -> io::Result<Connection> {
    send(kubeconfig, port, &format!("{method} {path} HTTP/1.1\r\nConnection: close"), "")
}

/// Sends a request of any kind; `head` is its first line and its own headers.
pub fn send(kubeconfig: &str, port: u16, head: &str, body: &str) -> io::Result<Connection> {
    let field = |name: &str| {
        let line = kubeconfig.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap();
        decode(line.trim_start_matches(':').trim())
    };
    let tls = settings(&field("certificate-authority-data"))
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(&field("client-certificate-data")).unwrap()],
            rustls::pki_types::PrivateKeyDer::from_pem_slice(&field("client-key-data")).unwrap(),
        )
        .unwrap();
    let mut stream = open(tls, "127.0.0.1", port)?;
    write(&mut stream, "127.0.0.1", head, body)?;
    Ok(stream)
}

fn write(stream: &mut Connection, host: &str, head: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let request = format!("{head}\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes())
}

/// Sends a request without a certificate, to the server of a name at a port.
fn send_as_nobody(instance: &Instance, (host, port): (&str, u16), head: &str, body: &str) -> io::Result<Connection> {
    let authorities = std::fs::read(instance.state().join("pki/ca.crt"))?;
    let mut stream = open(settings(&authorities).with_no_client_auth(), host, port)?;
    write(&mut stream, host, head, body)?;
    Ok(stream)
}

/// Sends a request to the API with more headers (lines that end with CR and LF), as the user of a kubeconfig or without a certificate; returns the
/// status code.
pub fn ask(
    instance: &Instance,
    kubeconfig: Option<&str>,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> io::Result<u16> {
    let (port, head) =
        (instance.ports().0, format!("{method} {path} HTTP/1.1\r\nUser-Agent: a-test\r\n{headers}Connection: close"));
    status(&mut match kubeconfig {
        Some(kubeconfig) => send(kubeconfig, port, &head, body)?,
        None => send_as_nobody(instance, ("127.0.0.1", port), &head, body)?,
    })
}

/// Sends a request for a name below the domain to the gateway; returns the status code.
pub fn ask_gateway(instance: &Instance, name: &str, headers: &str) -> io::Result<u16> {
    let host = format!("{name}.{}", instance.record()["domain"].as_str().unwrap());
    let head = format!("GET /a/path?token=a-secret HTTP/1.1\r\n{headers}Connection: close");
    status(&mut send_as_nobody(instance, (&host, instance.ports().1), &head, "")?)
}

/// Shakes hands as a client without a certificate that trusts the instance's authorities; returns the server's certificate.
pub fn certificate_of(instance: &Instance, name: &str, port: u16) -> io::Result<Vec<u8>> {
    let authorities = std::fs::read(instance.state().join("pki/ca.crt"))?;
    let mut stream = open(settings(&authorities).with_no_client_auth(), name, port)?;
    stream.conn.complete_io(&mut stream.sock)?;
    Ok(stream.conn.peer_certificates().unwrap()[0].to_vec())
}

fn settings(authorities: &[u8]) -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authorities) {
        roots.add(certificate.unwrap()).unwrap();
    }
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}

fn open(tls: rustls::ClientConfig, name: &str, port: u16) -> io::Result<Connection> {
    let server = ServerName::try_from(name.to_owned()).unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(tls), server).map_err(io::Error::other)?;
    let socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(rustls::StreamOwned::new(connection, socket))
}

/// The whole of an answer, with its head, up to the end of the connection.
pub fn answer(stream: &mut Connection) -> io::Result<String> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    Ok(String::from_utf8_lossy(&all).into_owned())
}

/// The status code of an answer.
pub fn status(stream: &mut Connection) -> io::Result<u16> {
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
