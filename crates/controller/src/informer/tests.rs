//! An informer follows scripted events.

use std::sync::{Arc, Mutex};

use futures::{FutureExt, stream};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::Event;

use super::{Change, Informer};

fn object(namespace: &str, name: &str, version: u64, colour: &str) -> ConfigMap {
    let mut object = ConfigMap::default();
    object.metadata.namespace = Some(namespace.into());
    object.metadata.name = Some(name.into());
    object.metadata.uid = Some(format!("uid-of-{name}"));
    object.metadata.resource_version = Some(version.to_string());
    object.data = Some([("colour".to_owned(), colour.to_owned())].into());
    object
}

fn colour(object: &ConfigMap) -> Vec<String> {
    object.data.iter().flat_map(|data| data.get("colour").cloned()).collect()
}

fn names(objects: Vec<Arc<ConfigMap>>) -> Vec<String> {
    let mut names: Vec<String> = objects.into_iter().filter_map(|object| object.metadata.name.clone()).collect();
    names.sort();
    names
}

/// Applies events one after the other; the informer is as after the last.
async fn after(events: Vec<Event<ConfigMap>>, prepare: impl FnOnce(&Informer<ConfigMap>)) -> Informer<ConfigMap> {
    let (informer, work) = Informer::following(stream::iter(events.into_iter().map(Ok)));
    prepare(&informer);
    work.await;
    informer
}

#[tokio::test]
async fn indexes_follow_every_change() {
    let events = vec![
        Event::Init,
        Event::InitApply(object("demo", "a", 1, "red")),
        Event::InitApply(object("other", "b", 2, "red")),
        Event::InitDone,
        Event::Apply(object("demo", "c", 3, "blue")),
        Event::Apply(object("demo", "a", 4, "blue")),
        Event::Delete(object("other", "b", 5, "red")),
    ];
    let mut early = None;
    let informer = after(events, |informer| early = Some(informer.index(colour))).await;
    let (early, late) = (early.unwrap(), informer.index(colour));
    for index in [early, late] {
        assert_eq!(names(index.get("blue")), ["a", "c"]);
        assert_eq!(names(index.get("red")), Vec::<String>::new());
    }
    assert_eq!(names(informer.by_namespace().get("demo")), ["a", "c"]);
    assert!(informer.get(Some("demo"), "a").is_some() && informer.get(Some("other"), "b").is_none());
}

#[tokio::test]
async fn a_new_list_is_seen_as_the_changes_since_the_last() {
    let events = vec![
        Event::Init,
        Event::InitApply(object("demo", "stays", 1, "red")),
        Event::InitApply(object("demo", "goes", 2, "red")),
        Event::InitDone,
        Event::Init,
        Event::InitApply(object("demo", "stays", 1, "red")),
        Event::InitApply(object("demo", "comes", 7, "red")),
        Event::InitDone,
    ];
    let seen = Arc::new(Mutex::new(vec![]));
    let listener = seen.clone();
    after(events, move |informer| {
        informer.listen(move |change: &Change<ConfigMap>| {
            let name = change.both().next().unwrap().metadata.name.clone().unwrap();
            listener.lock().unwrap().push((name, change.old.is_some(), change.new.is_some()));
        });
    })
    .await;
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    let expected = [("comes", false, true), ("goes", false, true), ("goes", true, false), ("stays", false, true)];
    assert_eq!(seen, expected.map(|(name, old, new)| (name.to_owned(), old, new)));
}

#[tokio::test]
async fn a_reader_waits_for_what_was_written() {
    let list = [Event::Init, Event::InitApply(object("demo", "a", 1, "red")), Event::InitDone];
    let behind = after(list.to_vec(), |_| ()).await;
    behind.0.settle.expect(&object("demo", "b", 2, "red"));
    assert!(behind.settle().now_or_never().is_none(), "the watch has not brought it");
    let caught_up = after([list.to_vec(), vec![Event::Apply(object("demo", "b", 2, "red"))]].concat(), |_| ()).await;
    caught_up.0.settle.expect(&object("demo", "b", 2, "red"));
    caught_up.settle().await.unwrap();
    // A list that began after the write has it, whatever versions its objects have.
    let listed = after(list.to_vec(), |informer| informer.0.settle.expect(&object("demo", "b", 2, "red"))).await;
    listed.settle().await.unwrap();
}
