use http::Method;

use super::{Query, RequestInfo};

fn parse(method: Method, target: &str) -> RequestInfo {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    RequestInfo::parse(&method, path, &Query::parse(query)).unwrap()
}

#[test]
fn verbs_and_names_are_read_from_paths() {
    let table = [
        (Method::GET, "/apis/x.io/v1/namespaces/demo/disks", "list x.io/v1 disks  in demo of "),
        (Method::GET, "/apis/x.io/v1/disks?watch=true", "watch x.io/v1 disks  in  of "),
        (Method::GET, "/apis/x.io/v1/disks?watch=false", "list x.io/v1 disks  in  of "),
        (Method::PUT, "/apis/x.io/v1/namespaces/demo/disks/a/status", "update x.io/v1 disks status in demo of a"),
        (Method::DELETE, "/apis/x.io/v1/namespaces/demo/disks", "deletecollection x.io/v1 disks  in demo of "),
        (Method::GET, "/api/v1/namespaces/demo", "get /v1 namespaces  in demo of demo"),
        (Method::PUT, "/api/v1/namespaces/demo/finalize", "update /v1 namespaces finalize in demo of demo"),
        (Method::GET, "/api/v1/namespaces", "list /v1 namespaces  in  of "),
        (Method::GET, "/apis/x.io/v1/hosts/h1/tunnel/", "get x.io/v1 hosts tunnel in  of h1"),
        (Method::GET, "/apis/x.io/v1/namespaces/d%65mo/disks/a", "get x.io/v1 disks  in demo of a"),
    ];
    for (method, target, expected) in table {
        let it = parse(method, target);
        let got = format!(
            "{} {}/{} {} {} in {} of {}",
            it.verb, it.group, it.version, it.resource, it.subresource, it.namespace, it.name
        );
        assert_eq!(got, expected, "{target}");
        assert!(it.is_resource, "{target}");
    }
}

#[test]
fn documents_are_no_resources() {
    for path in ["/", "/api", "/api/v1", "/apis", "/apis/x.io", "/apis/x.io/v1", "/openapi/v3/apis/x.io/v1", "/version"]
    {
        assert!(!parse(Method::GET, path).is_resource, "{path}");
    }
}

#[test]
fn paths_that_could_be_read_in_two_ways_are_refused() {
    for path in ["/apis//x", "/apis/../api", "/apis/x%2Fy/v1", "/apis/%zz", "/a/./b", "/a/%2e%2e/b"] {
        assert!(RequestInfo::parse(&Method::GET, path, &Query::default()).is_err(), "{path}");
    }
}
