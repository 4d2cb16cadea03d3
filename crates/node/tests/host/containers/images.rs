//! Images from a registry.

use super::*;

/// A registry as HTTP serves it: `/v2/<repository>/{manifests,blobs}/<digest>` out of an OCI image layout's blobs.
async fn serve_blobs(blobs: PathBuf) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    use http_body_util::Full;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let blobs = blobs.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let digest = request.uri().path().rsplit("sha256:").next().unwrap_or_default();
                let found = std::fs::read(blobs.join(digest));
                let status = if found.is_ok() { 200 } else { 404 };
                let body = Full::new(bytes::Bytes::from(found.unwrap_or_default()));
                let response = http::Response::builder().status(status).body(body);
                async move { response }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(hyper_util::rt::TokioIo::new(stream), service);
            tokio::spawn(connection);
        }
    });
    (address, task)
}

#[tokio::test]
async fn an_image_from_the_registry_runs() {
    use evroc_node::container::digest::Digest;
    use evroc_node::container::fetch::RegistryClient;
    use evroc_node::container::image::{ImageReference, ImageStore};

    let _ = rustls::crypto::ring::default_provider().install_default();
    let host = Host::new();
    let blobs = host.root.path().join("blobs");
    std::fs::create_dir(&blobs).unwrap();
    let put = |bytes: Vec<u8>| {
        let digest = Digest::of(&bytes);
        std::fs::write(blobs.join(digest.hex()), &bytes).unwrap();
        (digest, bytes.len())
    };
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_dir_all(".", &host.image.layers[0]).unwrap();
    let tar = tar.into_inner().unwrap();
    let diff_id = Digest::of(&tar);
    let (layer, layer_size) = put(tar);
    let (config, config_size) = put(serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "config": {"User": "65532:65532", "Entrypoint": ["/app"], "Cmd": ["serve"], "StopSignal": "SIGTERM"},
    })
    .to_string()
    .into_bytes());
    let (manifest, _) = put(serde_json::json!({
        "schemaVersion": 2,
        "config": {"digest": config, "size": config_size},
        "layers": [{"digest": layer, "size": layer_size}],
    })
    .to_string()
    .into_bytes());
    let (address, server) = serve_blobs(blobs).await;
    let tls = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
    let tls = tokio::sync::watch::channel(std::sync::Arc::new(tls.with_no_client_auth())).1;
    let client = RegistryClient::new(format!("http://{address}"), tls);
    let store =
        ImageStore::open(&host.root.path().join("node/containers"), std::sync::Arc::new(client), unpacker()).unwrap();
    let reference =
        |digest| ImageReference { written: "demo/hello:v1".into(), repository: "demo/hello".into(), digest };
    let image = store.ensure(&reference(manifest)).await.unwrap();
    let spec = ContainerSpec { image, ..host.spec("a", &[]) };
    let container = host.runner.start(&spec).await.unwrap();
    container.wait_ready(PORT).await.unwrap();
    assert_eq!(section(&ask(&container).await, "hostname"), "test-a");
    let missing = store.ensure(&reference(Digest::of(b"no such image"))).await.unwrap_err();
    assert!(missing.is_permanent() && missing.to_string().contains("fetch manifest"), "{missing}");
    server.abort();
    host.finish().await;
}
