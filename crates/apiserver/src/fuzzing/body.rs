//! Bodies, as every client can send them: JSON, YAML, protobuf.

use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::http::request::content;
use crate::http::request::json::decode_json;
use crate::http::request::protobuf;
use crate::http::request::yaml::decode_yaml;
use crate::object::patch;
use crate::object::schema::decode::is_too_deep;

/// As written in JSON, in bytes.
fn longest_key(value: &Value) -> usize {
    match value {
        Value::Object(map) => {
            let longest = |(key, value): (&String, &Value)| json!(key).to_string().len().max(longest_key(value));
            map.iter().map(longest).max().unwrap_or(0)
        }
        Value::Array(items) => items.iter().map(longest_key).max().unwrap_or(0),
        _ => 0,
    }
}

/// JSON with those characters as escapes that YAML has only so, in strings, which is the only place where JSON has them. Kubernetes
/// refuses them in YAML as well.
fn without_controls(json: &str) -> String {
    let is_control = |it: char| matches!(it, '\u{7f}'..='\u{84}' | '\u{86}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}');
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        match is_control(character) {
            true => text.push_str(&format!("\\u{:04x}", character as u32)),
            false => text.push(character),
        }
    }
    text
}

pub(super) fn body(data: &[u8]) {
    let shown = content::excerpt(data);
    assert!(!shown.is_empty() && shown.len() <= 200);
    let json = decode_json(data);
    if let Ok((value, duplicates)) = &json {
        assert!(!is_too_deep(value));
        let (again, none) = decode_json(value.to_string().as_bytes()).expect("a decoded value can be written and read");
        assert_eq!(again, *value);
        assert_eq!(none, Vec::<String>::new());
        if duplicates.is_empty() && value.is_object() {
            assert_eq!(patch::merge_patch_problems(data), Vec::<String>::new());
        }
    }
    if let Ok(value) = decode_yaml(data) {
        assert!(!is_too_deep(&value));
        // But for keys of more than 1,024 characters: YAML has them only after a question mark.
        if longest_key(&value) <= 1024 {
            let json = without_controls(&value.to_string());
            assert_eq!(decode_yaml(json.as_bytes()).ok().as_ref(), Some(&value), "JSON is YAML");
        }
    }
    if let Some(value) = protobuf::decode(data) {
        assert!(!is_too_deep(&value), "deeper than JSON may be");
    }
    let types = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "text/plain"];
    for media_type in types {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        if let Err(error) = content::decode_object(&headers, data) {
            assert!(error.code.is_client_error(), "{}", error.message);
        }
    }
}
