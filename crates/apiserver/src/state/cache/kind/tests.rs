use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn object(key: &ObjectKey, revision: u64, wire_bytes: usize) -> Arc<CachedObject> {
    Arc::new(CachedObject {
        key: key.clone(),
        revision,
        wire: vec![b'x'; wire_bytes].into(),
        labels: Box::default(),
        uid: "".into(),
        owners: Box::default(),
        finalizers: Box::default(),
        is_deleting: false,
        takes: [].into(),
        gives: [].into(),
        fields: Box::default(),
    })
}

const NAMESPACES: [&str; 3] = ["a", "a-b", "b"];

fn key(number: u8) -> ObjectKey {
    ObjectKey::new(NAMESPACES[usize::from(number) % 3], &format!("n{}", number / 3))
}

/// The content of a page: keys with the revisions that wrote them.
fn shown(page: &Page) -> Vec<(String, u64)> {
    page.items.iter().map(|it| (it.key.to_string(), it.revision)).collect()
}

proptest! {
    /// Pages as of any revision, of any namespace, after any key, of any length, are those of a plain model.
    #[test]
    fn pages_show_every_revision_as_it_was(
        writes in prop::collection::vec((0_u8..12, prop::bool::weighted(0.7)), 1..40),
        asks in prop::collection::vec((0_usize..41, 0_usize..4, prop::option::of(0_u8..12), prop::option::of(1_usize..6)), 1..20),
    ) {
        let kind = KindCache::default();
        let mut states: Vec<BTreeMap<String, u64>> = vec![BTreeMap::new()];
        for (position, (number, is_put)) in writes.iter().enumerate() {
            let (key, revision) = (key(*number), position as u64 + 1);
            let mut state = states[position].clone();
            let current = is_put.then(|| object(&key, revision, 10));
            if *is_put { state.insert(key.to_string(), revision) } else { state.remove(key.as_str()) };
            states.push(state);
            kind.apply(revision, vec![(key, current)]);
        }
        let newest = writes.len() as u64;
        for namespace in NAMESPACES.into_iter().chain(["", "none"]) {
            prop_assert_eq!(kind.count_in(namespace), kind.in_namespace(namespace).len(), "{}", namespace);
        }
        for (at, namespace, after, limit) in asks {
            let at = at.min(writes.len());
            let namespace = NAMESPACES.get(namespace).copied().unwrap_or_default();
            let after = after.map(key);
            let request = PageRequest {
                namespace,
                after: after.as_ref().map(ObjectKey::as_str),
                limit,
                at: Some(at as u64),
                only: None,
                terms: &[],
            };
            let expected: Vec<(String, u64)> = states[at]
                .iter()
                .filter(|(key, _)| namespace.is_empty() || key.starts_with(&format!("{namespace}/")))
                .filter(|(key, _)| after.as_ref().is_none_or(|after| key.as_str() > after.as_str()))
                .map(|(key, revision)| (key.clone(), *revision))
                .collect();
            let page = kind.page(&request, newest, |_| true).unwrap();
            let length = limit.unwrap_or(usize::MAX).min(expected.len());
            prop_assert_eq!(shown(&page), &expected[..length]);
            prop_assert_eq!(page.more, length < expected.len());
            prop_assert_eq!(page.remaining, expected.len() - length);
            prop_assert_eq!(page.revision, at as u64);
        }
    }

    /// The index leaves out no object that a selector would have matched, now or as of any revision.
    #[test]
    fn an_index_changes_no_page(
        writes in prop::collection::vec((0_u8..12, prop::option::of((0_usize..3, prop::option::of(0_usize..2)))), 1..40),
        asks in prop::collection::vec((0_usize..41, 0_usize..4, 0_usize..3, 0_usize..2, prop::option::of(0_u8..12), any::<bool>()), 1..20),
    ) {
        let kind = KindCache::default();
        for (position, (number, values)) in writes.iter().enumerate() {
            let (key, revision) = (key(*number), position as u64 + 1);
            let current = values.map(|(field, label)| {
                let mut object = Arc::into_inner(object(&key, revision, 10)).unwrap();
                object.labels = label.map(|label| ("label".into(), label.to_string().into())).into_iter().collect();
                object.fields = [field.to_string().into()].into();
                Arc::new(object)
            });
            kind.apply(revision, vec![(key, current)]);
        }
        for (at, namespace, field, label, only, with_label) in asks {
            let (field, label) = (field.to_string(), label.to_string());
            let only = only.map(key);
            let mut terms = vec![Term::Field(0, &field)];
            terms.extend(with_label.then_some(Term::Label("label", &label)));
            let namespace = NAMESPACES.get(namespace).copied().unwrap_or_default();
            let at = Some(at.min(writes.len()) as u64);
            let narrow = PageRequest {
                namespace, after: None, limit: None, at, only: only.as_ref().map(ObjectKey::as_str), terms: &terms,
            };
            let wide = PageRequest { namespace, after: None, limit: None, at, only: None, terms: &[] };
            let select = |object: &CachedObject| {
                *object.fields[0] == *field
                    && (!with_label || object.label("label") == Some(&label))
                    && only.as_ref().is_none_or(|only| object.key == *only)
            };
            let pages = [narrow, wide].map(|request| shown(&kind.page(&request, writes.len() as u64, select).unwrap()));
            prop_assert_eq!(&pages[0], &pages[1]);
        }
    }

    /// A replay of the history from any revision arrives at the newest state.
    #[test]
    fn the_history_leads_from_any_revision_to_the_newest(
        writes in prop::collection::vec((0_u8..6, prop::bool::weighted(0.6)), 1..40),
        from in 0_usize..41,
    ) {
        let kind = KindCache::default();
        let mut states: Vec<BTreeMap<String, u64>> = vec![BTreeMap::new()];
        for (position, (number, is_put)) in writes.iter().enumerate() {
            let (key, revision) = (key(*number), position as u64 + 1);
            let mut state = states[position].clone();
            if *is_put { state.insert(key.to_string(), revision) } else { state.remove(key.as_str()) };
            states.push(state);
            kind.apply(revision, vec![(key.clone(), is_put.then(|| object(&key, revision, 10)))]);
        }
        let from = from.min(writes.len());
        let mut state = states[from].clone();
        let mut cursor = kind.cursor_after(from as u64).unwrap();
        loop {
            let changes = kind.changes_from(cursor, 3).unwrap();
            if changes.is_empty() { break }
            cursor += changes.len() as u64;
            for change in changes {
                let subject = change.subject().unwrap().key.to_string();
                match &change.current {
                    Some(current) => state.insert(subject, current.revision),
                    None => state.remove(&subject),
                };
            }
        }
        prop_assert_eq!(&state, states.last().unwrap());
    }
}

#[test]
fn a_reader_that_falls_behind_the_history_gets_an_error() {
    let kind = KindCache::default();
    let key = key(0);
    kind.apply(1, vec![(key.clone(), Some(object(&key, 1, 10)))]);
    let cursor = kind.cursor_after(0).unwrap();
    // Each change holds three mebibytes, both states and a line for watchers: the history holds ten of them.
    for revision in 2..60 {
        kind.apply(revision, vec![(key.clone(), Some(object(&key, revision, 1 << 20)))]);
    }
    assert!(kind.changes_from(cursor, 10).is_err());
    let oldest = kind.cursor_after(1).unwrap_err().oldest;
    assert!((47..52).contains(&oldest), "{oldest}");
    assert!(kind.cursor_after(oldest).is_ok(), "from there on everything is known");
    let request = PageRequest { namespace: "", after: None, limit: None, at: Some(oldest - 1), only: None, terms: &[] };
    assert_eq!(kind.page(&request, 60, |_| true).err(), Some(TooOld { oldest }));
}

#[test]
fn a_reset_ends_watches_and_begins_a_new_history() {
    let kind = KindCache::default();
    let key = key(0);
    kind.apply(1, vec![(key.clone(), Some(object(&key, 1, 10)))]);
    let cursor = kind.cursor_after(1).unwrap();
    kind.reset(BTreeMap::from([(key.clone(), object(&key, 7, 10))]), 9);
    assert_eq!(kind.changes_from(cursor, 10).err(), Some(TooOld { oldest: 9 }));
    let cursor = kind.cursor_after(9).unwrap();
    kind.apply(10, vec![(key, None)]);
    assert_eq!(kind.changes_from(cursor, 10).unwrap().len(), 1);
}

#[test]
fn frequent_values_are_counted_until_they_are_rare() {
    let kind = KindCache::default();
    let write = |number: u8, field: &str| {
        let revision = kind.read().newest + 1;
        let mut object = Arc::into_inner(object(&key(number), revision, 10)).unwrap();
        object.fields = [field.into()].into();
        object.labels = [("label".into(), field.into())].into();
        kind.apply(revision, vec![(key(number), Some(Arc::new(object)))]);
    };
    let both = [Term::Field(0, "common"), Term::Label("label", "common")];
    let narrowed = |term: Term<'_>| {
        let state = kind.read();
        let terms = [term];
        let found = state.index.narrowed(&terms, (Bound::Unbounded, Bound::Unbounded));
        found.map(|found| found.map(|(key, _)| key.to_owned()).collect::<Vec<_>>())
    };
    (0..10).for_each(|number| write(number, "common"));
    assert_eq!(both.map(narrowed), [None, None], "every object has it");
    (10..100).for_each(|number| write(number, "other"));
    let mut expected: Vec<String> = (0..10).map(|number| key(number).to_string()).collect();
    expected.sort();
    assert_eq!(both.map(narrowed), [Some(expected.clone()), Some(expected)]);
}
