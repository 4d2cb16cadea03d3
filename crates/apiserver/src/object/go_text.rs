//! Values as text in the form of Go's `fmt` and `encoding/json`, which Kubernetes' messages have.

use serde_json::Value;

/// Quotes as Go's `%q` does.
pub fn go_quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            '\u{80}'..='\u{a0}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{feff}' => {
                out.push_str(&format!("\\u{:04x}", c as u32))
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Writes a number as Go's `%v` does: integers plain, floats as [`go_float`].
pub fn go_number(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => go_float(float),
        _ => number.to_string(),
    }
}

/// Go's `%v` of a float64: shortest form, with an exponent from 1e6 up and below 1e-4.
pub fn go_float(float: f64) -> String {
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        let (mantissa, sign, digits) = exponent_form(float);
        format!("{mantissa}e{sign}{digits:0>2}")
    } else {
        format!("{float}")
    }
}

fn exponent_form(float: f64) -> (String, char, String) {
    let text = format!("{float:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.strip_prefix('-') {
        Some(digits) => (mantissa.to_string(), '-', digits.to_string()),
        None => (mantissa.to_string(), '+', exponent.to_string()),
    }
}

/// A number as Go's `json.Marshal` writes it: plain digits from 1e-6 up to 1e21.
fn go_json_number(number: &serde_json::Number) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(float) if float == 0.0 || (1e-6..1e21).contains(&float.abs()) => format!("{float}"),
        Some(float) => {
            let (mantissa, sign, digits) = exponent_form(float);
            format!("{mantissa}e{sign}{digits}")
        }
        None => number.to_string(),
    }
}

/// Compact JSON as Go's `json.Marshal` writes it: keys sorted, `<`, `>` and `&` escaped.
pub fn go_json(value: &Value) -> String {
    let mut out = String::new();
    write_go_json(value, &mut out);
    out
}

fn write_go_json(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (i, (key, entry)) in entries.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_go_json_string(key, out);
                out.push(':');
                write_go_json(entry, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_go_json(item, out);
            }
            out.push(']');
        }
        Value::String(text) => write_go_json_string(text, out),
        Value::Number(number) => out.push_str(&go_json_number(number)),
        other => out.push_str(&other.to_string()),
    }
}

fn write_go_json_string(text: &str, out: &mut String) {
    let plain = Value::from(text).to_string();
    for c in plain.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
}
