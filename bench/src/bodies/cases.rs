//! The worst requests for each decoder. Creates are dry runs: nothing is left of them.

use bytes::Bytes;
use http::Method;

use super::Case;
use super::text::{field, joined, list, map, protobuf, widget};
use crate::load::Sent;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const OPERATIONS: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// All cases, with the objects in a namespace.
pub fn all(namespace: &str) -> Vec<Case> {
    let paths = Paths(namespace.to_owned());
    [
        documents(&paths),
        metadata(&paths),
        validation(&paths),
        patches(&paths),
        applies(&paths),
        queries(&paths),
        registry(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

struct Paths(String);

impl Paths {
    fn collection(&self, plural: &str) -> String {
        format!("/apis/test.example/v1/namespaces/{}/{plural}", self.0)
    }

    /// Creates a widget from a text.
    fn create(&self, media_type: &'static str, text: impl Fn(usize) -> String + 'static) -> Box<dyn Fn(usize) -> Sent> {
        self.create_of("widgets", media_type, text)
    }

    fn create_of(
        &self,
        plural: &str,
        media_type: &'static str,
        text: impl Fn(usize) -> String + 'static,
    ) -> Box<dyn Fn(usize) -> Sent> {
        // Problems are an answer then, and not a hundred headers, which is more than this client reads.
        let path = format!("{}?dryRun=All&fieldValidation=Strict", self.collection(plural));
        Box::new(move |n| Sent::new(Method::POST, path.clone(), media_type, text(n)))
    }

    /// Changes the widget `name`.
    fn patch(
        &self,
        name: impl Fn(usize) -> String + 'static,
        media_type: &'static str,
        text: impl Fn(usize) -> String + 'static,
    ) -> Box<dyn Fn(usize) -> Sent> {
        let path = self.collection("widgets");
        Box::new(move |n| {
            let more = if media_type == APPLY { "&force=true&fieldManager=bench" } else { "" };
            let path = format!("{path}/{}?dryRun=All&fieldValidation=Strict{more}", name(n));
            Sent::new(Method::PATCH, path, media_type, text(n))
        })
    }

    /// Makes a widget that stays.
    fn make(&self, text: impl Fn(usize) -> String + 'static) -> Box<dyn Fn(usize) -> Sent> {
        let path = self.collection("widgets");
        Box::new(move |n| Sent::new(Method::POST, path.clone(), JSON, text(n)))
    }
}

fn case(decoder: &'static str, shape: &'static str, size: usize, request: Box<dyn Fn(usize) -> Sent>) -> Case {
    Case { decoder, shape, size, request, before: None }
}

/// A widget whose free part is this.
fn free(text: &str) -> String {
    widget("w", "", &format!("{{\"free\":{text}}}"))
}

/// A shape's name, its smallest size, and its text at a size.
type Shape = (&'static str, usize, fn(usize) -> String);
/// The same for bytes.
type BinaryShape = (&'static str, usize, fn(usize) -> Vec<u8>);
/// A shape with the place that it has in its document.
type PlacedShape = (&'static str, &'static str, usize, fn(usize) -> String);

fn documents(paths: &Paths) -> Vec<Case> {
    let json: [Shape; 10] = [
        ("different keys", 5_000, |n| free(&map(n, 1, "1"))),
        ("each key twice", 5_000, |n| free(&map(n, 2, "1"))),
        ("one key again and again", 5_000, |n| free(&map(n, n, "1"))),
        ("keys with one beginning", 2_000, |n| {
            free(&format!("{{{}}}", joined(n, ",", |i| format!("\"{}{i}\":1", "k".repeat(60)))))
        }),
        ("keys twice below a long name", 5_000, |n| free(&format!("{{\"{}\":{}}}", "n".repeat(6 * n), map(n, 2, "1")))),
        ("nesting", 50_000, |n| free(&format!("{}{}", "[".repeat(n), "]".repeat(n)))),
        ("a string of escapes", 20_000, |n| free(&format!("{{\"a\":\"{}\"}}", "\\u00e4\\n".repeat(n)))),
        ("a number of many digits", 100_000, |n| free(&format!("{{\"a\":1{}}}", "7".repeat(n)))),
        ("fractions", 10_000, |n| free(&format!("{{\"a\":{}}}", list(n, |i| format!("0.{i}12345678901234567"))))),
        ("an object of small objects", 5_000, |n| free(&map(n, 1, "{\"x\":{}}"))),
    ];
    let yaml: [Shape; 10] = [
        ("different keys", 2_000, |n| free(&map(n, 1, "1"))),
        ("lines of keys twice", 2_000, |n| {
            format!("{}\n{}", joined(n, "\n", |i| format!("a{}: 1", i / 2)), "kind: Widget")
        }),
        ("nesting", 20_000, |n| format!("a: {}{}", "[".repeat(n), "]".repeat(n))),
        ("references to an anchor", 2_000, |n| format!("b: &b [1, 2, 3]\na: {}", list(n, |_| "*b".into()))),
        ("anchors", 2_000, |n| format!("a: {}", list(n, |i| format!("&x{i} 1")))),
        ("a block of lines", 5_000, |n| format!("a: |\n{}", joined(n, "\n", |_| "  line".into()))),
        ("comments", 5_000, |n| format!("{}\na: 1", joined(n, "\n", |_| "# a comment".into()))),
        ("documents", 2_000, |n| joined(n, "\n---\n", |_| "a: 1".into())),
        ("a quoted string of escapes", 10_000, |n| format!("a: \"{}\"", "\\u00e4\\n".repeat(n))),
        ("tags", 2_000, |n| format!("a: {}", list(n, |_| "!!str x".into()))),
    ];
    let mut cases: Vec<Case> =
        json.into_iter().map(|(shape, size, text)| case("JSON", shape, size, paths.create(JSON, text))).collect();
    cases.extend(yaml.into_iter().map(|(shape, size, text)| case("YAML", shape, size, paths.create(YAML, text))));
    let ignored = format!("{}?dryRun=All&fieldValidation=Ignore", paths.collection("widgets"));
    cases.push(case(
        "JSON, lenient",
        "unknown fields, each twice",
        5_000,
        Box::new(move |n| Sent::new(Method::POST, ignored.clone(), JSON, widget("w", "", &map(n, 2, "1")))),
    ));
    let protobufs: [BinaryShape; 4] = [
        ("labels", 5_000, |n| many(n, 11, &|i| [field(1, format!("l{i}").as_bytes()), field(2, b"v")].concat())),
        ("finalizers", 5_000, |n| many(n, 14, &|i| format!("f/{i}").into_bytes())),
        ("unknown fields", 20_000, |n| many(n, 500, &|_| b"x".to_vec())),
        ("nesting", 5_000, |n| {
            (0..n).fold(Vec::new(), |inner, _| if inner.len() < 1 << 20 { field(1, &inner) } else { inner })
        }),
    ];
    cases.extend(protobufs.into_iter().map(|(shape, size, metadata)| {
        case(
            "protobuf",
            shape,
            size,
            Box::new(move |n| {
                let name = field(1, b"evt-protobuf");
                let body = protobuf("v1", "Namespace", &field(1, &[name, metadata(n)].concat()));
                Sent::new(Method::POST, "/api/v1/namespaces?dryRun=All".into(), PROTOBUF, body)
            }),
        )
    }));
    cases
}

fn many(n: usize, number: u64, item: &dyn Fn(usize) -> Vec<u8>) -> Vec<u8> {
    (0..n).flat_map(|i| field(number, &item(i))).collect()
}

fn metadata(paths: &Paths) -> Vec<Case> {
    let shapes: [Shape; 6] = [
        ("labels", 2_000, |n| format!(",\"labels\":{}", map(n, 1, "\"v\""))),
        ("wrong labels", 2_000, |n| format!(",\"labels\":{}", map(n, 1, "\"-\""))),
        ("annotations", 2_000, |n| format!(",\"annotations\":{}", map(n, 1, "\"v\""))),
        ("finalizers", 2_000, |n| format!(",\"finalizers\":{}", list(n, |i| format!("\"f.example/{i}\"")))),
        ("owners", 2_000, |n| {
            let owner = |i| {
                format!(
                    "{{\"apiVersion\":\"v1\",\"kind\":\"K\",\"name\":\"o{i}\",\"uid\":\"{i}\",\"controller\":true}}"
                )
            };
            format!(",\"ownerReferences\":{}", list(n, owner))
        }),
        ("managers", 500, |n| format!(",\"managedFields\":{}", managers(n))),
    ];
    let shapes = shapes.into_iter().map(|(shape, size, metadata)| {
        case("metadata", shape, size, paths.create(JSON, move |n| widget("w", &metadata(n), "{}")))
    });
    shapes.collect()
}

/// `managedFields` of many who each applied a field of their own and one that all have.
fn managers(n: usize) -> String {
    list(n, |i| {
        format!(
            "{{\"manager\":\"m{i}\",\"operation\":\"Apply\",\"apiVersion\":\"test.example/v1\",\"time\":\"2026-01-01T00:00:00Z\",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":{{\"f:spec\":{{\"f:free\":{{\"f:a{i}\":{{}},\"f:all\":{{}}}}}}}}}}"
        )
    })
}

fn validation(paths: &Paths) -> Vec<Case> {
    let widgets: [PlacedShape; 9] = [
        ("schema", "unknown fields", 5_000, |n| map(n, 1, "1")),
        ("schema", "items of the wrong type", 5_000, |n| format!("{{\"matrix\":{}}}", list(n, |_| "true".into()))),
        ("schema", "lists of lists of the wrong type", 1_000, |n| {
            format!("{{\"matrix\":{}}}", list(n, |_| "[true,\"x\"]".into()))
        }),
        ("schema", "more entries than allowed", 5_000, |n| format!("{{\"settings\":{}}}", map(n, 1, "\"v\""))),
        ("schema", "a set with equal items", 5_000, |n| {
            format!("{{\"tags\":{}}}", list(n, |i| format!("\"t{}\"", i / 2)))
        }),
        ("schema", "a map with equal keys", 2_000, |n| {
            format!("{{\"ports\":{}}}", list(n, |i| format!("{{\"number\":{}}}", i / 2)))
        }),
        ("schema", "a long string for a pattern", 200_000, |n| format!("{{\"name\":\"{}\"}}", "a".repeat(n))),
        ("schema", "long strings for formats", 50_000, |n| {
            let text = "1".repeat(n);
            format!("{{\"when\":\"{text}\",\"ip\":\"{text}\",\"code\":\"{text}\",\"pause\":\"{text}\"}}")
        }),
        ("schema", "an embedded object with labels", 2_000, |n| {
            format!(
                "{{\"template\":{{\"apiVersion\":\"v1\",\"kind\":\"K\",\"metadata\":{{\"labels\":{}}}}}}}",
                map(n, 1, "\"v\"")
            )
        }),
    ];
    let gadgets: [PlacedShape; 5] = [
        ("schema", "a set of numbers", 2_000, |n| format!("{{\"numbers\":{}}}", list(n, |i| i.to_string()))),
        ("schema", "defaults in a table", 2_000, |n| format!("{{\"table\":{}}}", map(n, 1, "{}"))),
        ("schema", "embedded objects", 1_000, |n| {
            format!(
                "{{\"parts\":{}}}",
                list(n, |i| format!("{{\"apiVersion\":\"v1\",\"kind\":\"K\",\"metadata\":{{\"name\":\"p{i}\"}}}}"))
            )
        }),
        ("CEL rules", "a list in the wrong order", 2_000, |n| {
            format!("{{\"steps\":{}}}", list(n, |i| format!("{{\"order\":{}}}", n - i)))
        }),
        ("CEL rules", "a map", 2_000, |n| format!("{{\"limits\":{}}}", map(n, 1, "200"))),
    ];
    let gadget = |spec: String| {
        format!(
            "{{\"apiVersion\":\"test.example/v1\",\"kind\":\"Gadget\",\"metadata\":{{\"name\":\"g\"}},\"spec\":{spec}}}"
        )
    };
    let widgets = widgets.into_iter().map(|(decoder, shape, size, spec)| {
        case(decoder, shape, size, paths.create(JSON, move |n| widget("w", "", &spec(n))))
    });
    let gadgets = gadgets.into_iter().map(|(decoder, shape, size, spec)| {
        case(decoder, shape, size, paths.create_of("gadgets", JSON, move |n| gadget(spec(n))))
    });
    let mut cases: Vec<Case> = widgets.chain(gadgets).collect();
    cases.push(case("access review", "a long question", 50_000, Box::new(|n| {
        let text = "x".repeat(n);
        let body = format!(
            "{{\"apiVersion\":\"authorization.k8s.io/v1\",\"kind\":\"SelfSubjectAccessReview\",\"spec\":{{\"resourceAttributes\":{{\"group\":\"{text}\",\"resource\":\"{text}\",\"verb\":\"{text}\"}}}}}}"
        );
        Sent::new(Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".into(), JSON, body)
    })));
    cases
}

fn patches(paths: &Paths) -> Vec<Case> {
    let of = |name: &'static str| move |n: usize| format!("{name}-{n}");
    // A widget with as many entries as the patch has operations.
    let with_entries = |name: &'static str| {
        paths.make(move |n| {
            widget(
                &format!("{name}-{n}"),
                "",
                &format!("{{\"free\":{{\"l\":{},\"m\":{}}}}}", list(n, |_| "0".into()), map(n, 1, "1")),
            )
        })
    };
    let operations: [Shape; 9] = [
        ("tests of one field", 2_000, |n| {
            list(n, |_| "{\"op\":\"test\",\"path\":\"/spec/mode\",\"value\":\"auto\"}".into())
        }),
        ("new fields", 2_000, |n| list(n, |i| format!("{{\"op\":\"add\",\"path\":\"/spec/free/n{i}\",\"value\":1}}"))),
        ("new items at the end", 2_000, |n| {
            list(n, |_| "{\"op\":\"add\",\"path\":\"/spec/free/l/-\",\"value\":1}".into())
        }),
        ("replaced items", 2_000, |n| {
            list(n, |i| format!("{{\"op\":\"replace\",\"path\":\"/spec/free/l/{i}\",\"value\":1}}"))
        }),
        ("removed fields, the last first", 2_000, |n| {
            list(n, |i| format!("{{\"op\":\"remove\",\"path\":\"/spec/free/m/a{}\"}}", n - 1 - i))
        }),
        ("copies", 2_000, |n| {
            list(n, |i| format!("{{\"op\":\"copy\",\"from\":\"/spec/mode\",\"path\":\"/spec/free/c{i}\"}}"))
        }),
        ("moves", 2_000, |n| {
            list(n, |i| {
                format!("{{\"op\":\"move\",\"from\":\"/spec/free/m/a{0}\",\"path\":\"/spec/free/o{0}\"}}", n - 1 - i)
            })
        }),
        ("a long path", 20_000, |n| format!("[{{\"op\":\"test\",\"path\":\"{}\",\"value\":1}}]", "/a".repeat(n))),
        ("fields twice", 5_000, |n| format!("[{}]", map(n, 2, "1"))),
    ];
    let mut cases: Vec<Case> = operations
        .into_iter()
        .map(|(shape, size, text)| Case {
            before: Some(with_entries("operations")),
            ..case("JSON patch", shape, size, paths.patch(of("operations"), OPERATIONS, text))
        })
        .collect();
    let merges: [Shape; 3] = [
        ("removed fields", 2_000, |n| format!("{{\"spec\":{{\"free\":{{\"m\":{}}}}}}}", map(n, 1, "null"))),
        ("fields twice", 5_000, |n| format!("{{\"spec\":{{\"free\":{}}}}}", map(n, 2, "1"))),
        ("nesting", 50_000, |n| format!("{}1{}", "{\"a\":".repeat(n), "}".repeat(n))),
    ];
    cases.extend(merges.into_iter().map(|(shape, size, text)| Case {
        before: Some(with_entries("merge")),
        ..case("merge patch", shape, size, paths.patch(of("merge"), MERGE, text))
    }));
    let strategic: [Shape; 3] = [
        ("labels", 2_000, |n| format!("{{\"metadata\":{{\"labels\":{}}}}}", map(n, 1, "\"v\""))),
        ("finalizers and their order", 2_000, |n| {
            let names = list(n, |i| format!("\"f.example/{i}\""));
            format!(
                "{{\"metadata\":{{\"finalizers\":{names},\"$setElementOrder/finalizers\":{names},\"$deleteFromPrimitiveList/finalizers\":{names}}}}}"
            )
        }),
        ("owners to delete", 2_000, |n| {
            format!(
                "{{\"metadata\":{{\"ownerReferences\":{}}}}}",
                list(n, |i| format!("{{\"uid\":\"{i}\",\"$patch\":\"delete\"}}"))
            )
        }),
    ];
    let namespace = format!("/api/v1/namespaces/{}?dryRun=All", paths.0);
    cases.extend(strategic.into_iter().map(|(shape, size, text)| {
        let path = namespace.clone();
        case(
            "strategic patch",
            shape,
            size,
            Box::new(move |n| Sent::new(Method::PATCH, path.clone(), STRATEGIC, text(n))),
        )
    }));
    cases
}

fn applies(paths: &Paths) -> Vec<Case> {
    let of = |name: &'static str| move |n: usize| format!("{name}-{n}");
    let applied = |name: &'static str, text: fn(usize) -> String| {
        paths.patch(of(name), APPLY, move |n| widget(&format!("{name}-{n}"), "", &format!("{{\"free\":{}}}", text(n))))
    };
    let managed = paths.make(|n| {
        let metadata = format!(",\"managedFields\":{}", managers(n));
        let spec = format!("{{\"free\":{}}}", map(n, 1, "1").replacen('{', "{\"all\":1,", 1));
        widget(&format!("managed-{n}"), &metadata, &spec)
    });
    let held = paths.make(|n| widget(&format!("held-{n}"), "", &format!("{{\"free\":{}}}", map(n, 1, "1"))));
    vec![
        case("apply", "a new object of many fields", 2_000, applied("fresh", |n| map(n, 1, "1"))),
        Case {
            before: Some(held),
            ..case("apply", "many fields of another manager", 2_000, applied("held", |n| map(n, 1, "2")))
        },
        Case {
            before: Some(managed),
            ..case("apply", "many managers", 200, applied("managed", |_| "{\"all\":2}".into()))
        },
    ]
}

fn queries(paths: &Paths) -> Vec<Case> {
    let widgets = paths.collection("widgets");
    let get = |path: fn(&str, usize) -> String| -> Box<dyn Fn(usize) -> Sent> {
        let widgets = widgets.clone();
        Box::new(move |n| Sent::new(Method::GET, path(&widgets, n), JSON, Bytes::new()))
    };
    vec![
        case(
            "label selector",
            "labels",
            2_000,
            get(|at, n| format!("{at}?labelSelector={}", joined(n, ",", |i| format!("a{i}")))),
        ),
        case(
            "label selector",
            "values",
            2_000,
            get(|at, n| format!("{at}?labelSelector=a+in+({})", joined(n, ",", |i| format!("v{i}")))),
        ),
        case("label selector", "brackets", 5_000, get(|at, n| format!("{at}?labelSelector=a+in+{}", "(".repeat(n)))),
        case(
            "field selector",
            "fields",
            800,
            get(|at, n| format!("{at}?fieldSelector={}", joined(n, ",", |i| format!("spec.mode!=m{i}")))),
        ),
        case(
            "field selector",
            "backslashes",
            5_000,
            get(|at, n| format!("{at}?fieldSelector=spec.mode={}", "%5C".repeat(n))),
        ),
        case("query", "parameters", 2_000, get(|at, n| format!("{at}/none?{}", joined(n, "&", |i| format!("p{i}=v"))))),
        case(
            "query",
            "one parameter again and again",
            2_000,
            get(|at, n| format!("{at}/none?{}", joined(n, "&", |_| "limit=1".into()))),
        ),
        case("path", "segments", 5_000, get(|at, n| format!("{at}{}", "/x".repeat(n)))),
        case("path", "escapes", 5_000, get(|at, n| format!("{at}/{}", "%41".repeat(n)))),
        case(
            "continue token",
            "a long one",
            12_000,
            get(|at, n| format!("{at}?limit=1&continue={}", "eyJ2".repeat(n / 4))),
        ),
        case("content negotiation", "media types", 500, {
            let path = format!("{widgets}/none");
            Box::new(move |n| {
                let accept = joined(n, ",", |i| format!("application/json;as=T{i};v=v1"));
                Sent::new(Method::GET, path.clone(), JSON, Bytes::new()).header("accept", accept)
            })
        }),
    ]
}

fn registry() -> Vec<Case> {
    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let descriptor = |i: usize| format!("{{\"mediaType\":\"x/y\",\"digest\":\"sha256:{i:064x}\",\"size\":1}}");
    let manifest = move |layers: &str, more: &str| {
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{MANIFEST}\",\"config\":{{\"mediaType\":\"x/y\",\"digest\":\"{DIGEST}\",\"size\":0}},\"layers\":{layers}{more}}}"
        )
    };
    let put = |text: Box<dyn Fn(usize) -> String>| -> Box<dyn Fn(usize) -> Sent> {
        Box::new(move |n| Sent::new(Method::PUT, "/v2/demo/evt-bodies/manifests/t".into(), MANIFEST, text(n)))
    };
    vec![
        case("registry manifest", "layers", 1_000, put(Box::new(move |n| manifest(&list(n, descriptor), "")))),
        case(
            "registry manifest",
            "one layer again and again",
            1_000,
            put(Box::new(move |n| manifest(&list(n, |_| descriptor(1)), ""))),
        ),
        case(
            "registry manifest",
            "annotations",
            5_000,
            put(Box::new(move |n| manifest("[]", &format!(",\"annotations\":{}", map(n, 1, "\"v\""))))),
        ),
        case(
            "registry manifest",
            "nesting",
            50_000,
            put(Box::new(move |n| manifest("[]", &format!(",\"x\":{}{}", "[".repeat(n), "]".repeat(n))))),
        ),
    ]
}
