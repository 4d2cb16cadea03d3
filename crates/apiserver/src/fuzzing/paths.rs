//! Paths and queries of requests. The input is `METHOD TARGET`, as in the first line of a request.

use http::Method;

use crate::http::request::options::{self, WriteOptions};
use crate::http::request::{Query, RequestInfo};
use crate::http::server::enter;
use crate::http::views::View;

const REAL: &str = "web-x7";

pub(super) fn request_path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((method, target)) = text.split_once(' ') else { return };
    let Ok(method) = method.parse::<Method>() else { return };
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let query = Query::parse(query);
    check_query(&query);
    let Some((view, inner)) = enter::split(path) else { return plain(&method, path, &query) };
    assert!(inner.starts_with('/'));
    plain(&method, inner, &query);
    let Ok(info) = RequestInfo::parse(&method, inner, &query) else { return };
    for is_namespaced in [true, false] {
        in_view(view, &info, is_namespaced);
    }
}

fn plain(method: &Method, path: &str, query: &Query) {
    let info = match RequestInfo::parse(method, path, query) {
        Ok(info) => info,
        Err(error) => return assert_eq!(error.code, 404),
    };
    for segment in &info.segments {
        let is_name = !matches!(segment.as_str(), "" | "." | "..") && !segment.contains(['/', '\0']);
        assert!(is_name, "{segment:?} can be read in two ways");
    }
    parts_are_of_the_path(&info);
    verb_is_of_the_method(&info, method);
    let attributes = info.attributes();
    assert_eq!(attributes.path.is_empty(), info.is_resource);
    assert_eq!(
        (&attributes.namespace, &attributes.name, attributes.verb.as_str()),
        (&info.namespace, &info.name, info.verb)
    );
    // Written in full and read again, it is the same request: nothing is decoded twice.
    let written: String = info.segments.iter().map(|it| format!("/{}", encode(it))).collect();
    let written = if written.is_empty() { "/".to_owned() } else { written };
    let again = RequestInfo::parse(method, &written, query).unwrap_or_else(|_| panic!("{written}"));
    assert_eq!(again, info, "{written}");
}

/// Every part of a request is one of its path's, in its place: above all the namespace, by which it is authorised.
fn parts_are_of_the_path(info: &RequestInfo) {
    let mut rest = info.segments.iter().map(String::as_str);
    if !info.is_resource {
        assert_eq!((info.namespace.as_str(), info.resource.as_str(), info.name.as_str()), ("", "", ""));
        return;
    }
    match rest.next() {
        Some("api") => assert_eq!(info.group, ""),
        Some("apis") => assert_eq!(rest.next(), Some(info.group.as_str())),
        other => panic!("{other:?} has no resources"),
    }
    assert_eq!(rest.next(), Some(info.version.as_str()));
    let mut written: Vec<&str> = Vec::new();
    if !info.namespace.is_empty() && !info.is_namespace_itself() {
        written.extend(["namespaces", &info.namespace]);
    }
    let below = [&info.resource, &info.name, &info.subresource].into_iter().map(String::as_str);
    written.extend(below.filter(|it| !it.is_empty()));
    written.extend(info.rest.split('/').filter(|it| !it.is_empty()));
    assert_eq!(rest.collect::<Vec<_>>(), written);
}

/// A caller who may only read cannot write with another method.
fn verb_is_of_the_method(info: &RequestInfo, method: &Method) {
    let is_reading = matches!(info.verb, "get" | "list" | "watch" | "head" | "options");
    let is_safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    assert_eq!(is_reading, is_safe, "{method} is {}", info.verb);
    if info.is_resource && is_safe && *method != Method::OPTIONS {
        assert_eq!(info.verb == "get", !info.name.is_empty(), "{}", info.verb);
    }
}

/// A view shows its own namespace and nothing else, by whatever name the request addresses it.
fn in_view(cluster: &str, info: &RequestInfo, is_namespaced: bool) {
    let view = View {
        namespace: REAL.into(),
        aliases: vec!["web".into(), "acme".into(), "default".into()],
        ..View::default()
    };
    let mut mapped = info.clone();
    let refusal = enter::rename(cluster, view, is_namespaced, &mut mapped);
    if refusal.is_some() {
        return;
    }
    if is_namespaced {
        let is_own = mapped.namespace == REAL;
        let is_without =
            mapped.namespace.is_empty() && info.namespace.is_empty() && !matches!(info.verb, "list" | "watch");
        assert!(is_own || is_without, "{:?} became {:?}", info.namespace, mapped.namespace);
        assert_ne!(info.namespace, REAL, "the real name is none of the view's");
    } else {
        assert_eq!(mapped.namespace, info.namespace);
    }
    assert_eq!((mapped.name, mapped.resource, mapped.verb), (info.name.clone(), info.resource.clone(), info.verb));
}

fn check_query(query: &Query) {
    for is_watch in [true, false] {
        if let Err(error) = options::check_list(query, is_watch) {
            assert_eq!(error.code, 422);
        }
    }
    if let Err(error) = WriteOptions::parse(query, "PatchOptions") {
        assert_eq!(error.code, 422);
    }
    if let Err(error) = query.number("limit") {
        assert_eq!(error.code, 400);
    }
}

fn encode(segment: &str) -> String {
    segment.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
