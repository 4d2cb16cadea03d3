//! Label and field selectors: the text of the query's parameter.

use serde_json::{Map, Value, json};

use crate::object::meta_validate::names;
use crate::object::selector::{FieldSelector, LabelSelector, Operator, field_text};

pub(super) fn label_selector(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let selector = match LabelSelector::parse(text) {
        Ok(selector) => selector,
        Err(error) => return assert!(!error.0.is_empty()),
    };
    let printed = selector.to_string();
    let again = LabelSelector::parse(&printed).unwrap_or_else(|e| panic!("{printed:?}: {e}"));
    assert_eq!(again, selector, "{printed:?}");
    let requirements = selector.requirements();
    assert_eq!(selector.is_everything(), requirements.is_empty());
    for it in requirements {
        assert_eq!(names::label_key(&it.key), Vec::<String>::new(), "{:?} is the key of no label", it.key);
        assert!(it.values.is_sorted_by(|a, b| a < b), "{:?}", it.values);
    }
    for labels in candidates(&selector) {
        let value_of = |key: &str| labels.get(key).and_then(Value::as_str);
        let matches = selector.matches(value_of);
        let each = requirements.iter().all(|it| LabelSelector::parse(&it.to_string()).unwrap().matches(value_of));
        assert_eq!(matches, each, "all requirements, and nothing else: {printed:?} {labels:?}");
        for it in requirements {
            if let Some(opposite) = opposite(it.operator) {
                let text = crate::object::selector::Requirement { operator: opposite, ..it.clone() }.to_string();
                let other = LabelSelector::parse(&text).unwrap_or_else(|e| panic!("{text:?}: {e}"));
                let this = LabelSelector::parse(&it.to_string()).unwrap();
                assert_ne!(this.matches(value_of), other.matches(value_of), "{it} and {text}: {labels:?}");
            }
        }
        for (key, value) in selector.exact_values().filter(|_| matches) {
            assert_eq!(value_of(key), Some(value), "{printed:?}");
        }
    }
}

fn opposite(operator: Operator) -> Option<Operator> {
    Some(match operator {
        Operator::Equals | Operator::DoubleEquals => Operator::NotEquals,
        Operator::NotEquals => Operator::Equals,
        Operator::In => Operator::NotIn,
        Operator::NotIn => Operator::In,
        Operator::Exists => Operator::DoesNotExist,
        Operator::DoesNotExist => Operator::Exists,
        Operator::GreaterThan | Operator::LessThan => return None,
    })
}

/// Labels that are near the selector: none, its own values, others.
fn candidates(selector: &LabelSelector) -> Vec<Map<String, Value>> {
    let all = |pick: &dyn Fn(&[String]) -> Value| -> Map<String, Value> {
        selector.requirements().iter().map(|it| (it.key.clone(), pick(&it.values))).collect()
    };
    let first = |values: &[String]| json!(values.first().cloned().unwrap_or_default());
    let last = |values: &[String]| json!(values.last().cloned().unwrap_or_default());
    vec![Map::new(), all(&first), all(&last), all(&|_| json!("other")), all(&|_| json!("0")), all(&|_| json!(""))]
}

pub(super) fn field_selector(data: &[u8]) {
    const SELECTABLE: [&str; 3] = [".spec.running", ".spec.size", ".status.phase"];
    let Ok(text) = std::str::from_utf8(data) else { return };
    for is_namespaced in [true, false] {
        let selector = match FieldSelector::parse(text, is_namespaced, &SELECTABLE) {
            Ok(selector) => selector,
            Err(error) => {
                assert!(!error.0.is_empty());
                continue;
            }
        };
        let printed = selector.to_string();
        let again =
            FieldSelector::parse(&printed, is_namespaced, &SELECTABLE).unwrap_or_else(|e| panic!("{printed:?}: {e}"));
        assert_eq!(again, selector, "{printed:?}");
        assert_eq!(again.to_string(), printed);
        let fields = ["metadata.name", "metadata.namespace", "spec.running", "spec.size", "status.phase"];
        let mut demanded = json!({});
        for field in fields {
            if let Some(value) = selector.exact_value(field) {
                let (parent, key) = field.split_once('.').unwrap();
                demanded[parent][key] = json!(value);
            }
        }
        for object in [demanded, json!({}), json!({"metadata": {"name": "a"}, "spec": {"running": true, "size": 3}})] {
            let texts = fields.map(|field| (field, field_text(&object, field)));
            let text_of = |field: &str| texts.iter().find(|it| it.0 == field).map_or("", |it| &it.1);
            if selector.matches(text_of) {
                for field in fields {
                    let demanded = selector.exact_value(field);
                    assert!(demanded.is_none_or(|it| it == text_of(field)), "{printed:?} {object}");
                }
            }
        }
        let mut same = selector.clone();
        fields.iter().for_each(|field| same.map_value(field, str::to_owned));
        assert_eq!(same, selector);
        if !is_namespaced {
            assert_eq!(selector.exact_value("metadata.namespace"), None);
        }
    }
}
