//! Properties of a store in an etcd only: members that fail, TLS, strangers in the same etcd, a past of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use evroc_store::etcd::{Address, OpenError, Options, Tls};
use evroc_store::{EtcdStore, KeyRange, RangeRequest, Revision, Store, StoreError, WatchRequest};
use evroc_tests::etcd::{Etcd, ServerTls};
use futures::StreamExt;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};

use crate::support::{put, try_put, value};

async fn start(version: &'static str, members: usize, options: &'static [&'static str]) -> Etcd {
    let started = tokio::task::spawn_blocking(move || Etcd::start_with(version, members, None, options));
    started.await.expect("started").expect("etcd starts")
}

async fn open(address: &str) -> Result<EtcdStore, OpenError> {
    Options::new(address.parse::<Address>().expect("an address")).open().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_outlives_one_of_its_members() {
    let mut etcd = start("3.5", 3, &[]).await;
    let store = Arc::new(open(&etcd.address()).await.expect("store opens"));
    let mut acknowledged = Vec::new();
    let mut position = store.revision().await.expect("revision");
    let mut stream = store.watch(WatchRequest::new(KeyRange::all(), position)).await.expect("watch begins");
    let mut seen = 0;
    for dead in 0..3 {
        etcd.kill_member(dead);
        for number in 0..20 {
            let key = format!("{dead}/{number}");
            // A write in flight when the member died may have been applied or not: then it is written again.
            let written = async {
                while try_put(&*store, &key, key.clone()).await.is_err() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), written).await.expect("the others go on");
            acknowledged.push(key);
        }
        // A watch ends with the member that it came from, and goes on at another one where it was.
        let following = async {
            while seen < acknowledged.len() {
                match stream.next().await {
                    Some(Ok(batch)) => {
                        assert!(batch.revision >= position);
                        position = batch.revision;
                        for event in batch.events.iter() {
                            seen += usize::from(event.previous.is_none());
                        }
                    }
                    Some(Err(StoreError::Backend { .. })) | None => {
                        if let Ok(again) = store.watch(WatchRequest::new(KeyRange::all(), position)).await {
                            stream = again;
                        }
                    }
                    Some(Err(other)) => panic!("{other:?}"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), following).await.expect("the watch goes on");
        etcd.start_member(dead).expect("member starts");
    }
    for key in &acknowledged {
        assert_eq!(value(&*store, key).await.expect("read").expect("exists"), *key);
    }
}

/// An authority, with a server's and a client's certificate that it has signed.
fn certificates(folder: &Path) -> (ServerTls, Tls) {
    let mut authority = CertificateParams::new([]).expect("parameters");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().expect("a key");
    let ca = authority.self_signed(&authority_key).expect("an authority").pem();
    let issuer = Issuer::new(authority, authority_key);
    let signed = |names: Vec<SanType>| {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.subject_alt_names = names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &issuer).expect("signed").pem(), key.serialize_pem())
    };
    let (server, server_key) = signed(vec![SanType::IpAddress([127, 0, 0, 1].into())]);
    let (client, client_key) = signed(vec![SanType::DnsName("control".try_into().expect("a name"))]);
    let file = |name: &str, content: &str| {
        let path = folder.join(name);
        std::fs::write(&path, content).expect("written");
        path
    };
    let server = ServerTls {
        ca: file("ca.crt", &ca),
        certificate: file("server.crt", &server),
        key: file("server.key", &server_key),
    };
    (server, Tls { ca: ca.into_bytes(), identity: Some((client.into_bytes(), client_key.into_bytes())) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_certificates_of_both_sides() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let (server, client) = certificates(folder.path());
    let started = tokio::task::spawn_blocking(move || Etcd::start_with("3.4", 1, Some(server), &[]));
    let etcd = started.await.expect("started").expect("etcd starts");
    let address: Address = etcd.address().parse().expect("an address");
    let store = Options::new(address.clone()).tls(client.clone()).open().await.expect("store opens");
    put(&store, "a", "1").await;
    assert_eq!(value(&store, "a").await.expect("read").expect("exists"), "1");

    // etcd reads its files again: the other authority's must not come into their place.
    let elsewhere = tempfile::tempdir().expect("temporary folder");
    let (_, stranger) = certificates(elsewhere.path());
    let without_certificate = Tls { identity: None, ..client.clone() };
    let wrong_authority = Tls { ca: stranger.ca.clone(), ..client.clone() };
    let wrong_certificate = Tls { identity: stranger.identity, ..client.clone() };
    for (what, options) in [
        ("no TLS", Options::new(address.clone())),
        ("no certificate", Options::new(address.clone()).tls(without_certificate)),
        ("another authority", Options::new(address.clone()).tls(wrong_authority)),
        ("a stranger's certificate", Options::new(address.clone()).tls(wrong_certificate)),
    ] {
        let refused = options.open().await.err().unwrap_or_else(|| panic!("{what} was let in"));
        assert!(refused.to_string().contains("no member of etcd://"), "{what}: {refused}");
    }
    let nonsense = Tls { ca: b"nonsense".to_vec(), identity: None };
    let refused = Options::new(address).tls(nonsense).open().await.err().expect("refused");
    assert!(!refused.to_string().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_stores_and_strangers_share_an_etcd() {
    let etcd = start("3.4", 1, &[]).await;
    let (one, other) = (format!("{}/one", etcd.address()), format!("{}/other", etcd.address()));
    let (one, other) = (open(&one).await.expect("opens"), open(&other).await.expect("opens"));
    let first = put(&one, "key", "1").await;
    let mut stream = one.watch(WatchRequest::new(KeyRange::all(), first)).await.expect("watch begins");
    put(&other, "key", "2").await;
    put(&other, "key2", "2").await;
    assert_eq!(value(&one, "key").await.expect("read").expect("exists"), "1");
    assert_eq!(one.range(RangeRequest::new(KeyRange::all())).await.expect("read").items.len(), 1);
    // Other clients' writes move the progress, so that no consumer waits for a revision that never comes.
    let now = one.revision().await.expect("revision");
    assert_eq!(now, Revision(first.0 + 2));
    let mut seen = Revision::ZERO;
    while seen < now {
        let batch = stream.next().await.expect("open").expect("works");
        assert!(batch.is_progress_mark());
        seen = batch.revision;
    }
    // A prefix with other keys.
    let nested = open(&format!("{}/one/data", etcd.address())).await.expect("opens");
    put(&nested, "x", "y").await;
    match value(&one, "data/x").await {
        Err(StoreError::Damaged { key, .. }) => assert_eq!(key, "data/x"),
        found => panic!("{found:?}"),
    }
    let inside = open(&format!("{}/a", etcd.address())).await.expect("opens");
    put(&inside, "b/origin", "not an origin").await;
    let refused = open(&format!("{}/a/data/b", etcd.address())).await.err().expect("refused").to_string();
    assert!(refused.contains("/a/data/b/origin") && refused.contains("another prefix"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_can_begin_at_a_revision() {
    let etcd = start("3.4", 1, &[]).await;
    let address: Address = etcd.address().parse().expect("an address");
    let store = Options::new(address.clone()).create(Revision(1000)).await.expect("made");
    assert_eq!(store.revision().await.expect("revision"), Revision(1000));
    assert_eq!(put(&store, "a", "1").await, Revision(1001));
    assert_eq!(store.compacted_at().await.expect("read"), Revision(1000));
    for at in [0, 999] {
        match store.get(b"a", Some(Revision(at))).await {
            Err(StoreError::Compacted { compacted_at, .. }) => assert_eq!(compacted_at, Revision(1000)),
            found => panic!("{found:?}"),
        }
    }
    store.compact(Revision(5)).await.expect("an older one changes nothing");
    assert_eq!(store.get(b"a", Some(Revision(1000))).await.expect("read").0, None);
    let refused = Options::new(address).create(Revision(7)).await.err().expect("refused").to_string();
    assert!(refused.contains("already holds a store"), "{refused}");
    // Every process that opens it finds the same counter.
    let address = etcd.address().parse().expect("an address");
    let again = Options::new(address).open_to_read().await.expect("opens");
    assert_eq!(again.revision().await.expect("revision"), Revision(1001));
}

/// etcd's quota is the disk of this store: reads go on, writes say why they do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_is_a_full_disk() {
    let etcd = start("3.4", 1, &["--quota-backend-bytes=8388608"]).await;
    let store = open(&etcd.address()).await.expect("opens");
    let mut written = 0;
    let full = loop {
        match try_put(&store, &format!("key/{written}"), vec![7; 1 << 20]).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 100, "the quota is 8 MiB");
    };
    assert!(matches!(full, StoreError::DiskFull { .. }), "{full:?}");
    assert!(value(&store, "key/0").await.expect("read").is_some());
}

#[tokio::test]
async fn an_unreachable_etcd_is_named() {
    let refused = open("etcd://127.0.0.1:9").await.err().expect("refused").to_string();
    assert!(refused.contains("no member of etcd://127.0.0.1:9"), "{refused}");
}

/// With compaction, rewriting the same keys does not grow the files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn churn_does_not_grow_the_disk() {
    let etcd = start("3.5", 1, &["--unsafe-no-fsync"]).await;
    let store = Arc::new(open(&etcd.address()).await.expect("opens"));
    let database = etcd.folder().join("m0/member/snap/db");
    let size = || std::fs::metadata(&database).expect("the database").len();
    let mut largest = 0;
    for round in 0..60u32 {
        let writes = (0..200u32).map(|key| {
            let store = store.clone();
            async move { put(&*store, &format!("key/{key}"), vec![(round + key) as u8; 4096]).await }
        });
        let newest = futures::future::join_all(writes).await.into_iter().max().expect("writes");
        store.compact(newest).await.expect("compacted");
        largest = largest.max(size());
    }
    // 48 MB were written, 0.8 MB are alive; etcd frees the space of compacted revisions a little later.
    assert!(largest < 32 << 20, "{largest} bytes");
}
