use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn labels(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

#[test]
fn label_selectors_match_as_in_kubernetes() {
    let object = labels(json!({"foo": "bar", "baz": "blah", "n": "5", "empty": ""}));
    for (text, want) in [
        ("", true),
        ("foo", true),
        ("!foo", false),
        ("! foo", false),
        ("nope", false),
        ("!nope", true),
        ("foo=bar", true),
        ("foo==bar", true),
        ("foo = bar", true),
        ("foo!=bar", false),
        ("nope!=bar", true),
        ("foo in (bar,baz)", true),
        ("foo in (x)", false),
        ("foo notin (x,y)", true),
        ("nope notin (x)", true),
        ("foo=bar,baz=blah", true),
        ("foo=bar,baz=x", false),
        ("n>4", true),
        ("n>5", false),
        ("n<6", true),
        ("foo>1", false),
        ("empty=", true),
        ("empty", true),
        ("empty in (,a)", true),
        ("empty in ()", true),
        ("empty in (,,)", true),
        ("foo in (,)", false),
        ("in in (in)", false),
        ("foo=in", false),
    ] {
        let selector = LabelSelector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(selector.matches(|key| object.get(key).and_then(Value::as_str)), want, "{text}");
    }
    assert!(LabelSelector::parse("!a").unwrap().matches(|_| None));
}

#[test]
fn label_selector_errors_are_kubernetes_own() {
    for (text, want) in [
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a,", "found '', expected: identifier after ','"),
        (",a", "found ',', expected: !, identifier, or 'end of string'"),
        ("=b", "found '=', expected: !, identifier, or 'end of string'"),
        ("a==!b", "unable to parse requirement: found '!', expected: identifier"),
        ("!=b", "found '!=', expected: !, identifier, or 'end of string'"),
        (
            "a>b",
            "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ] {
        assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), want, "{text}");
    }
    let error = LabelSelector::parse("a/b/c=d").unwrap_err().to_string();
    assert!(
        error.starts_with("unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must"),
        "{error}"
    );
    let error = LabelSelector::parse("a=-b").unwrap_err().to_string();
    assert!(
        error.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"-b\": a valid label must be"),
        "{error}"
    );
}

#[test]
fn field_selectors_match_as_in_kubernetes() {
    let object = json!({"metadata":{"name":"a","namespace":"n"},"spec":{"running":true,"size":3,"zone":"z"}});
    let selectable = [".spec.running", ".spec.size", ".spec.zone", ".spec.gone"];
    for (text, want) in [
        ("", true),
        ("metadata.name=a", true),
        ("metadata.name==b", false),
        ("metadata.name!=b,metadata.namespace=n", true),
        ("spec.running=true", true),
        ("spec.running=false", false),
        ("spec.size=3", true),
        ("spec.zone!=z", false),
        ("spec.gone=", true),
        (r"spec.zone!=a\,b\=c", true),
        ("metadata.name=a,", true),
    ] {
        let selector = FieldSelector::parse(text, true, &selectable).unwrap();
        let paths = ["metadata.name", "metadata.namespace"].into_iter().chain(selectable);
        let paths = paths.map(|path| path.trim_start_matches('.'));
        let texts: std::collections::BTreeMap<&str, String> =
            paths.map(|path| (path, field_text(&object, path))).collect();
        assert_eq!(selector.matches(|field| &texts[field]), want, "{text}");
    }
    for (text, want) in [
        ("spec.other=1", "field label not supported: spec.other"),
        ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        (r"a=b\c", r"invalid field selector: invalid escape sequence: \c"),
    ] {
        assert_eq!(FieldSelector::parse(text, true, &selectable).unwrap_err().to_string(), want);
    }
    assert!(FieldSelector::parse("metadata.namespace=n", false, &[]).is_err());
    assert_eq!(FieldSelector::parse("metadata.name=a", true, &[]).unwrap().exact_name(), Some("a"));
}

fn requirement() -> impl Strategy<Value = String> {
    let key = "[a-z]([-a-z0-9]{0,5}[a-z0-9])?";
    let value = "[A-Za-z0-9]{0,4}";
    prop_oneof![
        (key, value).prop_map(|(k, v)| format!("{k}={v}")),
        (key, value).prop_map(|(k, v)| format!("{k}!={v}")),
        key.prop_map(|k| k),
        key.prop_map(|k| format!("!{k}")),
        (key, prop::collection::vec("[A-Za-z0-9]{1,4}", 0..4)).prop_map(|(k, v)| format!("{k} in ({})", v.join(","))),
        (key, prop::collection::vec("[A-Za-z0-9]{1,4}", 0..4))
            .prop_map(|(k, v)| format!("{k} notin ({})", v.join(","))),
        (key, any::<i16>()).prop_map(|(k, n)| format!("{k}>{}", i32::from(n).unsigned_abs())),
    ]
}

proptest! {
    #[test]
    fn label_selectors_print_what_they_parse(parts in prop::collection::vec(requirement(), 0..4)) {
        let parsed = LabelSelector::parse(&parts.join(",")).unwrap();
        prop_assert_eq!(&LabelSelector::parse(&parsed.to_string()).unwrap(), &parsed);
    }

    #[test]
    fn field_selectors_print_what_they_parse(value in ".{0,8}") {
        let selector = FieldSelector::parse(&format!("metadata.name={}", value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=")), true, &[]).unwrap();
        prop_assert_eq!(selector.exact_name(), Some(value.as_str()));
        prop_assert_eq!(&FieldSelector::parse(&selector.to_string(), true, &[]).unwrap(), &selector);
    }

    #[test]
    fn no_text_panics(text in "[a-z=!(),<> /.]{0,20}|.{0,20}") {
        let _ = LabelSelector::parse(&text);
        let _ = FieldSelector::parse(&text, true, &[".a.b"]);
    }
}
