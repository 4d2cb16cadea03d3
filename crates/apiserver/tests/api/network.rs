//! Over TLS: certificates, streams, upgrades, the end.

use crate::support::network::NetworkServer;
use kube::api::{Api, ListParams};

type Namespace = k8s_openapi::api::core::v1::Namespace;

#[tokio::test]
async fn client_certificates_say_who_asks() {
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
async fn a_certificate_of_somebody_else_is_refused() {
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
