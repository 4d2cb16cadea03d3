//! The kept inputs and generated ones, through the properties.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{TARGETS, run};

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

#[test]
fn every_kept_input_keeps_the_properties() {
    let mut broken = Vec::new();
    for (name, target) in TARGETS {
        let folder = std::fs::read_dir(corpus().join(name)).unwrap_or_else(|e| panic!("fuzz/corpus/{name}: {e}"));
        let mut count = 0;
        for entry in folder {
            let path = entry.unwrap().path();
            let data = std::fs::read(&path).unwrap();
            count += 1;
            // ViewNamespace when the process dies, and with --nocapture.
            println!("{}", path.display());
            let started = std::time::Instant::now();
            if catch_unwind(AssertUnwindSafe(|| target(&data))).is_err() {
                broken.push(path.display().to_string());
            }
            println!("{:?}", started.elapsed());
        }
        assert!(count >= 5, "fuzz/corpus/{name} has {count} inputs");
    }
    assert_eq!(broken, Vec::<String>::new());
}

#[test]
fn every_target_can_be_fuzzed() {
    let manifest = std::fs::read_to_string(corpus().join("../Cargo.toml")).unwrap();
    for (name, _) in TARGETS {
        let file = corpus().join(format!("../fuzz_targets/{name}.rs"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        assert!(text.contains(&format!("target!({name:?})")), "{name}");
        assert!(manifest.contains(&format!("name = {name:?}")), "fuzz/Cargo.toml has no {name}");
    }
    // Other crates have targets too.
    let is_ours = |name: &str| {
        let text = std::fs::read_to_string(corpus().join(format!("../fuzz_targets/{name}.rs")));
        text.unwrap_or_else(|e| panic!("fuzz/corpus/{name} has no target: {e}")).contains("evroc_fuzz::target!")
    };
    let kept = std::fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let ours = kept.filter(|name| is_ours(name)).count();
    assert_eq!(ours, TARGETS.len(), "a folder of fuzz/corpus has no target");
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2i64..3).prop_map(Value::from),
        "[a-c~/é]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::vec(("[a-c]|a/b|a~b", inner), 0..4)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    prop::collection::vec(("[a-c]", value()), 0..4).prop_map(|entries| Value::Object(entries.into_iter().collect()))
}

fn operation() -> impl Strategy<Value = Value> {
    let path = "(/(-?[0-2]|[a-c]|a~1b|a~0b|-)){1,3}";
    ("add|remove|replace|move|copy|test", path, path, value())
        .prop_map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
}

fn spec() -> impl Strategy<Value = Value> {
    let text = || "[12]".prop_map(Value::from);
    let item = ("[xy]", prop::option::of(80..82_i64), prop::option::of("[12]")).prop_map(|(name, port, v)| {
        let mut item = json!({"name": name});
        port.into_iter().for_each(|it| item["port"] = it.into());
        v.into_iter().for_each(|it| item["v"] = it.into());
        item
    });
    let entry = prop_oneof![
        ("a|n|null|any|unknown", prop_oneof![text(), Just(Value::Null), Just(json!(1))]),
        (Just("struct".to_owned()), prop::collection::btree_map("[xy]", text(), 0..2).prop_map(|it| json!(it))),
        ("map|whole|free", prop::collection::btree_map("[kl]", text(), 0..3).prop_map(|it| json!(it))),
        ("set|atomic", prop::collection::vec("[abc]", 0..3).prop_map(|it| json!(it))),
        (Just("list".to_owned()), prop::collection::vec(item, 0..3).prop_map(Value::Array)),
        (Just("free".to_owned()), value()),
    ];
    prop::collection::vec(entry, 0..5).prop_map(|entries| Value::Object(entries.into_iter().collect()))
}

fn write() -> impl Strategy<Value = Value> {
    ("one|two|three", "apply|apply|update", spec(), any::<bool>())
        .prop_map(|(by, verb, spec, force)| json!({"by": by, verb: spec, "force": force}))
}

fn rule() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("self".to_owned()),
        "self\\.[ndsblqmtpx]",
        "oldSelf\\.[ndsl]",
        "-?[0-9]{1,3}u?",
        Just("9223372036854775807".to_owned()),
        "'[a-cé]{0,3}'",
        "true|false|null|\\[\\]|\\{\\}|1\\.5|b'a'|duration\\('1h'\\)|timestamp\\('9999-12-31T23:59:59Z'\\)",
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let (a, b) = (inner.clone(), inner.clone());
        prop_oneof![
            (a.clone(), "\\+|-|\\*|/|%|==|!=|<|<=|>|>=|&&|\\|\\||in", b.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            ("-|!", a.clone()).prop_map(|(op, a)| format!("{op}({a})")),
            (a.clone(), b.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            (a.clone(), "all|exists|exists_one|map|filter", b.clone())
                .prop_map(|(a, f, b)| format!("({a}).{f}(x, {b})")),
            ("size|int|uint|double|string|bytes|type|dyn|duration|timestamp|quantity|ip|isIP|url|has", a.clone())
                .prop_map(|(f, a)| format!("{f}({a})")),
            (
                a.clone(),
                "startsWith|contains|matches|split|indexOf|charAt|find|findAll|join|min|max|sum|isSorted|substring",
                b.clone()
            )
                .prop_map(|(a, f, b)| format!("({a}).{f}({b})")),
            (a.clone(), b.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (a, b).prop_map(|(a, b)| format!("[{a}, {b}]")),
        ]
    })
}

fn lines(parts: &[&dyn std::fmt::Display]) -> Vec<u8> {
    parts.iter().map(|it| it.to_string()).collect::<Vec<_>>().join("\n").into_bytes()
}

proptest! {
    #[test]
    fn json_patches(object in object(), operations in prop::collection::vec(operation(), 0..5)) {
        run("json_patch", &lines(&[&object, &Value::Array(operations)]));
    }

    #[test]
    fn a_json_patch_makes_any_object_of_any_other(from in object(), to in object()) {
        let patch = serde_json::to_vec(&json_patch::diff(&from, &to)).unwrap();
        prop_assert_eq!(crate::object::patch::apply_json_patch(&from, &patch).unwrap(), to);
    }

    #[test]
    fn merge_patches(object in object(), patch in object()) {
        run("merge_patch", &lines(&[&object, &patch]));
    }

    #[test]
    fn applies(writes in prop::collection::vec(write(), 1..6)) {
        let writes: Vec<String> = writes.iter().map(Value::to_string).collect();
        run("apply", writes.join("\n").as_bytes());
    }

    #[test]
    fn label_selectors(text in "([a-c]|in|notin|!|=|==|!=|,|\\(|\\)|<|>| |[0-9]|-|\\.|/|é){0,12}") {
        run("label_selector", text.as_bytes());
    }

    #[test]
    fn field_selectors(text in "((metadata\\.name|metadata\\.namespace|spec\\.size|a)(=|==|!=)[a-c0-9\\\\,=é]{0,3},?){0,4}") {
        run("field_selector", text.as_bytes());
    }

    #[test]
    fn request_paths(
        method in "GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|ODD",
        path in "(/clusters/[a-c:]{0,3})?(/api/v1|/apis/x/v1|)(/namespaces|/web|/acme|/web-x7|/[a-c]|/%2e|/%2F|/%61|//|/\\.\\.|/status|/é){0,6}/?",
        query in "(\\?((watch|limit|continue|dryRun|force|resourceVersion|resourceVersionMatch|sendInitialEvents)=?[a-z0-9%]{0,3}&?){0,4})?",
    ) {
        run("request_path", format!("{method} {path}{query}").as_bytes());
    }

    #[test]
    fn continue_tokens(token in "[A-Za-z0-9_=-]{0,40}", key in "[a-z]{0,4}(/[a-z\"\\\\é]{0,4})?") {
        run("continue_token", &lines(&[&token, &key]));
    }

    #[test]
    fn rules(rule in rule(), new in spec_of_rules(), old in spec_of_rules()) {
        run("cel", &lines(&[&rule, &new, &old]));
    }

    #[test]
    fn bodies(value in value(), text in "([a-c]|: |- |\n|  |\\[|\\]|\\{|\\}|,|&a|\\*a|\"|'|#|\\||>|!|%|0x1|1e9|~|<<|---){0,20}") {
        run("body", value.to_string().as_bytes());
        run("body", text.as_bytes());
    }
}

fn spec_of_rules() -> impl Strategy<Value = Value> {
    let entry = prop_oneof![
        (Just("n"), prop_oneof![any::<i64>(), -2..3_i64].prop_map(|it| json!(it))),
        (Just("d"), any::<f32>().prop_map(|it| json!(it))),
        (Just("s"), "[a-c0-9.:/é]{0,6}".prop_map(|it| json!(it))),
        (Just("l"), prop::collection::vec("[a-c]{0,2}", 0..5).prop_map(|it| json!(it))),
        (Just("m"), prop::collection::btree_map("[a-c]", 0..3_i64, 0..3).prop_map(|it| json!(it))),
        (Just("t"), "(0001|2026|9999)-(01|12)-31T23:59:59(Z|\\+14:00)".prop_map(|it| json!(it))),
        (Just("p"), "-?[0-9]{1,9}(h|m|s|ms|ns)".prop_map(|it| json!(it))),
        (Just("x"), value()),
    ];
    prop::collection::vec(entry, 0..6)
        .prop_map(|entries| Value::Object(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()))
}
