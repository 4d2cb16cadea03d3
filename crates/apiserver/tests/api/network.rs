//! Over TLS: certificates, streams, upgrades, the end.

use std::sync::Arc;

use async_trait::async_trait;
use evroc_apiserver::authn::{Authenticate, AuthnError, Peer};
use evroc_apiserver::body::ResponseBody;
use evroc_apiserver::{ApiError, Connect, ConnectRequest, Identity, body};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::network::NetworkServer;
use crate::support::{DISKS, TestServer, disk};
use kube::api::{Api, ListParams};

type Namespace = k8s_openapi::api::core::v1::Namespace;

#[tokio::test]
async fn client_certificates_identify_the_caller() {
    let network = NetworkServer::start().await;
    let client = network.kube().await;
    let namespaces: Api<Namespace> = Api::all(client);
    assert_eq!(namespaces.list(&ListParams::default()).await.unwrap().items.len(), 0);

    let kubeconfig: kube::config::Kubeconfig = serde_json::from_value(network.kubeconfig("eve", &[])).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let eve: Api<Namespace> = Api::all(kube::Client::try_from(config).unwrap());
    let refused = eve.list(&ListParams::default()).await.unwrap_err();
    assert!(refused.to_string().contains("User \"eve\" cannot list resource \"namespaces\""), "{refused}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused() {
    let network = NetworkServer::start().await;
    let other = NetworkServer::start().await;
    let mut kubeconfig = network.kubeconfig("admin", &["evroc:operators"]);
    kubeconfig["users"] = other.kubeconfig("admin", &["evroc:operators"])["users"].clone();
    let kubeconfig: kube::config::Kubeconfig = serde_json::from_value(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(kube::Client::try_from(config).unwrap());
    assert!(namespaces.list(&ListParams::default()).await.is_err());
}

#[tokio::test]
async fn stopping_ends_watches_and_returns() {
    use futures::TryStreamExt;
    let network = NetworkServer::start().await;
    let namespaces: Api<Namespace> = Api::all(network.kube().await);
    let watch = namespaces.watch(&Default::default(), "0").await.unwrap();
    network.stop.cancel();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(5), watch.try_collect::<Vec<_>>());
    assert!(ended.await.is_ok(), "the watch ends");
    let stopped = tokio::time::timeout(std::time::Duration::from_secs(15), network.serving).await;
    stopped.expect("the server returns").unwrap().unwrap();
}

/// Takes the connection over and sends back what comes, in upper case.
struct Shout;

#[async_trait]
impl Connect for Shout {
    async fn connect(&self, mut request: ConnectRequest) -> Result<http::Response<ResponseBody>, ApiError> {
        assert_eq!(
            (request.namespace.as_str(), request.name.as_str(), request.identity.user.as_str()),
            ("demo", "a", "admin")
        );
        assert_eq!(request.object["spec"]["sizeGb"], 5);
        if !request.request.headers().contains_key("upgrade") {
            return Ok(http::Response::new(body::full(format!("rest: {:?}", request.rest))));
        }
        let upgrade = hyper::upgrade::on(&mut request.request);
        tokio::spawn(async move {
            let mut stream = TokioIo::new(upgrade.await.unwrap());
            let mut buffer = [0; 16];
            while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                stream.write_all(&buffer[..count].to_ascii_uppercase()).await.unwrap();
            }
        });
        let response = http::Response::builder().status(101).header("connection", "upgrade").header("upgrade", "shout");
        Ok(response.body(body::empty()).unwrap())
    }
}

/// Knows one token, which ends a second after it was shown.
struct ForASecond;

#[async_trait]
impl Authenticate for ForASecond {
    async fn authenticate(&self, _peer: &Peer, headers: &http::HeaderMap) -> Result<Option<Identity>, AuthnError> {
        Ok(headers.contains_key("authorization").then(|| {
            let mut identity = Identity::new("admin", ["evroc:operators"]);
            identity.expires = Some(jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2));
            identity
        }))
    }
}

#[tokio::test]
async fn a_stream_that_took_the_connection_over_ends_with_the_credential() {
    let server = TestServer::start_with(|it| {
        it.connect("disks.test.example", "shout", Arc::new(Shout)).authenticator(Arc::new(ForASecond))
    })
    .await;
    let admin = server.admin();
    admin.make_namespace("demo").await;
    admin.create(DISKS, &disk("a", 5)).await;
    let network = NetworkServer::over(server).await;
    let mut sender = network.http1("admin", &["evroc:operators"]).await;
    let request = http::Request::get(format!("{DISKS}/a/shout"))
        .header("host", "localhost")
        .header("authorization", "Bearer brief")
        .header("connection", "upgrade")
        .header("upgrade", "shout")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 101);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HELLO", "it serves first");
    let end = tokio::time::timeout(std::time::Duration::from_secs(30), stream.read(&mut answer)).await;
    let end = end.expect("it ends");
    assert!(!matches!(end, Ok(1..)), "nobody wrote anything, and the connection has ended: {end:?}");
}

#[tokio::test]
async fn streams_take_the_connection_over() {
    let server = TestServer::start_with(|it| it.connect("disks.test.example", "shout", Arc::new(Shout))).await;
    let admin = server.admin();
    admin.make_namespace("demo").await;
    admin.create(DISKS, &disk("a", 5)).await;
    assert_eq!(admin.get(&format!("{DISKS}/none/shout")).await.0, 404);
    assert_eq!(admin.get(&format!("{DISKS}/a/shout/more/of/it")).await.1, "rest: \"more/of/it\"");
    let (code, _) = server.client("bob", &[]).get(&format!("{DISKS}/a/shout")).await;
    assert_eq!(code, 403);
    let (_, list) = admin.get("/apis/test.example/v1").await;
    assert!(list["resources"].as_array().unwrap().iter().any(|it| it["name"] == "disks/shout"));

    let network = NetworkServer::over(server).await;
    let mut sender = network.http1("admin", &["evroc:operators"]).await;
    let request = http::Request::get(format!("{DISKS}/a/shout"))
        .header("host", "localhost")
        .header("connection", "upgrade")
        .header("upgrade", "shout")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), 101);
    let mut stream = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HELLO");
}
