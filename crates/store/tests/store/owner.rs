//! One process uses a store in an etcd: who comes second is refused, who has lost it writes nothing any more.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use evroc_store::etcd::{Address, OpenError, Options};
use evroc_store::{EtcdStore, Operation, Revision, Store, StoreError, Txn};
use evroc_tests::etcd::Etcd;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::{put, try_put, value};

/// A claim that is soon over: etcd's least is two seconds.
const SHORT: Duration = Duration::from_secs(2);
/// Longer than any claim that a test waits for.
const DEADLINE: Duration = Duration::from_secs(60);

async fn start(version: &'static str) -> Etcd {
    tokio::task::spawn_blocking(move || Etcd::start(version)).await.expect("started").expect("etcd starts")
}

/// How an instance opens the store; what ends its process is kept.
fn options(address: &str, instance: &str, home: &Path) -> (Options, Arc<Mutex<Vec<String>>>) {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let message = ends.clone();
    let options = Options::new(address.parse::<Address>().expect("an address"))
        .instance(instance)
        .home(home)
        .on_fatal(move |error| message.lock().expect("not poisoned").push(error.to_string()));
    (options, ends)
}

async fn open(address: &str, instance: &str, home: &Path) -> Result<EtcdStore, OpenError> {
    options(address, instance, home).0.open().await
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary folder")
}

fn refused(opened: Result<EtcdStore, OpenError>) -> String {
    opened.err().expect("it is in use").to_string()
}

async fn second_opener_is_refused(version: &'static str) {
    let etcd = start(version).await;
    let (address, one, two) = (etcd.address(), folder(), folder());
    let first = open(&address, "one", one.path()).await.expect("opens");
    put(&first, "key", "1").await;

    let message = refused(open(&address, "two", two.path()).await);
    let who = format!("store {address}/evroc is in use by instance one, process {} on ", std::process::id());
    assert!(message.starts_with(&who), "{message}");
    for part in [" since 20", "Z: stop it first", "If it is dead, wait ", " s, until its claim has ended", "/PREFIX"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let message = refused(open(&address, "one", one.path()).await);
    assert!(message.starts_with(&who) && message.ends_with("two processes cannot share a store"), "{message}");
    let made = options(&address, "two", two.path()).0.create(Revision(5)).await;
    assert!(refused(made).contains("already holds a store"));

    // A reader disturbs no other process, and changes nothing.
    let reader = options(&address, "two", two.path()).0.open_to_read().await.expect("opens");
    assert_eq!(value(&reader, "key").await.expect("read").expect("exists"), "1");
    match try_put(&reader, "key", "2").await {
        Err(StoreError::InvalidRequest(message)) => assert!(message.contains("to be read"), "{message}"),
        found => panic!("{found:?}"),
    }
    assert!(reader.erase().await.is_err());
    let missing = options(&format!("{address}/other"), "two", two.path()).0.open_to_read().await;
    assert!(refused(missing).contains("holds no store"));
    let other = open(&format!("{address}/other"), "two", two.path()).await.expect("another prefix is free");
    other.close().await;

    // It is free as soon as it is closed, or dropped.
    put(&first, "key", "3").await;
    first.close().await;
    let second = open(&address, "two", two.path()).await.expect("opens");
    assert_eq!(value(&second, "key").await.expect("read").expect("exists"), "3");
    drop(second);
    let freed = async { while open(&address, "one", one.path()).await.is_err() {} };
    tokio::time::timeout(SHORT * 5, freed).await.expect("it is given back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_opener_is_refused_by_etcd_3_4() {
    second_opener_is_refused("3.4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_opener_is_refused_by_etcd_3_5() {
    second_opener_is_refused("3.5").await;
}

/// One of many processes that come at the same time, to an empty or unused store, gets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_gets_it() {
    let etcd = start("3.5").await;
    for round in 0..5 {
        let homes: Vec<_> = (0..8).map(|_| folder()).collect();
        let openers = homes.iter().enumerate().map(|(number, home)| {
            let (address, name) = (etcd.address(), format!("{round}-{number}"));
            async move { open(&address, &name, home.path()).await }
        });
        let (opened, refusals): (Vec<_>, Vec<_>) =
            futures::future::join_all(openers).await.into_iter().partition(Result::is_ok);
        assert_eq!(opened.len(), 1);
        for refusal in refusals {
            assert!(refused(refusal).contains(&format!("in use by instance {round}-")));
        }
        for store in opened {
            store.expect("opened").close().await;
        }
    }
}

/// The claim stands in every change: it is taken away below the store, long before its keeper looks after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_lost_the_claim_changes_nothing() {
    for version in ["3.4", "3.5"] {
        let etcd = start(version).await;
        let below = folder();
        // Its keys are those of the other one: `/below/data/` and these.
        let beneath = open(&format!("{}/below", etcd.address()), "beneath", below.path()).await.expect("opens");
        for (round, taken) in [Some("evroc-owner/1\ninstance two\nhost elsewhere\n"), None].into_iter().enumerate() {
            for change in 0..6 {
                let name = format!("{round}-{change}");
                let (address, home) = (format!("{}/below/data/{name}", etcd.address()), folder());
                let (opening, ends) = options(&address, "one", home.path());
                let store = opening.open().await.expect("opens");
                let before = put(&store, "key", "1").await;
                let lease = store.lease_grant(DEADLINE).await.expect("granted");
                let leased = Operation::Put { key: "leased".into(), value: "1".into(), lease: Some(lease.id) };
                store.txn(Txn::new().then(leased)).await.expect("written");
                let claim = format!("{name}/owner");
                match taken {
                    Some(text) => drop(put(&beneath, &claim, text).await),
                    None => drop(beneath.txn(Txn::new().then(Operation::delete(claim))).await.expect("removed")),
                }
                let refused = match change {
                    0 => store.txn(Txn::update("key", before, "2")).await.map(drop),
                    1 => store.txn(Txn::create("new", "2")).await.map(drop),
                    // Neither condition holds: the exclusion is reported first.
                    2 => store.txn(Txn::create("key", "2")).await.map(drop),
                    3 => store.lease_revoke(lease.id).await.map(drop),
                    4 => store.compact(before).await,
                    _ => store.erase().await,
                };
                assert!(matches!(refused, Err(StoreError::Closed)), "{change}: {refused:?}");
                let ends = ends.lock().expect("not poisoned").clone();
                let [message] = &ends[..] else { panic!("{change}: {ends:?}") };
                match taken {
                    Some(_) => assert!(message.contains("by another process now: instance two, process "), "{message}"),
                    None => assert!(message.contains("it has no holder now"), "{message}"),
                }
                let reader = options(&address, "one", home.path()).0.open_to_read().await.expect("opens");
                for (key, expected) in [("key", Some("1")), ("new", None), ("leased", Some("1"))] {
                    let found = value(&reader, key).await.expect("read");
                    assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{change}: {key}");
                }
            }
        }
    }
}

/// A way to an etcd that can be cut.
struct Cable {
    address: String,
    cut: watch::Sender<bool>,
}

async fn cable(etcd: &Etcd) -> Cable {
    let to = etcd.address().trim_start_matches("etcd://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("etcd://{}", listener.local_addr().expect("an address"));
    let (cut, is_cut) = watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let (to, mut is_cut) = (to.clone(), is_cut.clone());
            tokio::spawn(async move {
                let carried = async {
                    let mut far = TcpStream::connect(&to).await?;
                    copy_bidirectional(&mut near, &mut far).await
                };
                tokio::select! {
                    _ = is_cut.wait_for(|cut| *cut) => {}
                    _ = carried => {}
                }
            });
        }
    });
    Cable { address, cut }
}

/// A process that is cut off loses the store to another one, and learns of it as soon as etcd answers again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_cut_off_loses_the_claim() {
    let etcd = start("3.4").await;
    let cable = cable(&etcd).await;
    let (one, two) = (folder(), folder());
    let (first, ends) = options(&cable.address, "one", one.path());
    let first = first.claim_ttl(SHORT).open().await.expect("opens");
    put(&first, "key", "1").await;
    cable.cut.send_replace(true);

    let second = async {
        loop {
            match open(&etcd.address(), "two", two.path()).await {
                Ok(store) => break store,
                Err(error) => assert!(error.to_string().contains("in use by instance one"), "{error}"),
            }
        }
    };
    let second = tokio::time::timeout(DEADLINE, second).await.expect("the claim ends");
    put(&second, "key", "2").await;
    assert!(ends.lock().expect("not poisoned").is_empty(), "not yet known to any");
    assert!(matches!(try_put(&first, "key", "3").await, Err(StoreError::Backend { .. })));

    cable.cut.send_replace(false);
    let ended = async {
        while ends.lock().expect("not poisoned").is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, ended).await.expect("the process is ordered to end");
    let message = ends.lock().expect("not poisoned").join("\n");
    assert!(message.contains("by another process now: instance two, process "), "{message}");
    assert!(matches!(try_put(&first, "key", "3").await, Err(StoreError::Closed)));
    assert_eq!(value(&second, "key").await.expect("read").expect("exists"), "2");
}

/// Opens the store and dies as by `kill -9`: nothing is given back, but the kernel releases its lock.
async fn open_and_die(options: Options) {
    let died = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Runtime::new().expect("runtime");
        let store = runtime.block_on(options.open()).expect("opens");
        runtime.block_on(put(&store, "key", "1"));
        runtime.shutdown_background();
    });
    died.await.expect("ended");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_instance_comes_back_at_once() {
    for version in ["3.4", "3.5"] {
        let etcd = start(version).await;
        let (address, one, two) = (etcd.address(), folder(), folder());
        open_and_die(options(&address, "one", one.path()).0).await;
        let message = refused(open(&address, "two", two.path()).await);
        assert!(message.contains("in use by instance one"), "{message}");
        let begun = Instant::now();
        let back = open(&address, "one", one.path()).await.expect("opens");
        assert!(begun.elapsed() < Duration::from_secs(10), "the claim lasts 30 s: {:?}", begun.elapsed());
        put(&back, "key", "2").await;
    }
}

/// The same name on the same host, but nothing proves that it is the same one: it waits, if the other one is dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namesake_waits_for_the_end_of_the_claim() {
    let etcd = start("3.5").await;
    let (one, copy) = (folder(), folder());
    open_and_die(options(&etcd.address(), "one", one.path()).0.claim_ttl(SHORT)).await;
    let opened = tokio::time::timeout(DEADLINE, open(&etcd.address(), "one", copy.path())).await;
    let opened = opened.expect("in time").expect("opens");
    opened.close().await;

    // One that is alive renews its claim: that is seen.
    let alive = options(&etcd.address(), "one", one.path()).0.claim_ttl(SHORT).open().await.expect("opens");
    let message = refused(open(&etcd.address(), "one", copy.path()).await);
    assert!(message.contains("in use by instance one"), "{message}");
    put(&alive, "key", "2").await;
}
