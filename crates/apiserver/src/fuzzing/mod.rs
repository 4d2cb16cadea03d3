//! Properties that hold for any input of a client, as functions of bytes: called by the fuzz targets of the folder `fuzz`, and in
//! tests by every kept input in `fuzz/corpus` and by generators. A function returns where the input is refused as it should be, and
//! panics where a property is broken.

mod apply;
mod body;
mod patches;
mod paths;
mod rules;
mod selectors;
#[cfg(test)]
mod tests;
mod tokens;
#[cfg(test)]
mod worst_cases;

use serde_json::Value;

use crate::object::schema::decode::decode_strict;

/// A target: its name, which is that of its folder in the corpus, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("json_patch", patches::json_patch),
    ("merge_patch", patches::merge_patch),
    ("apply", apply::apply),
    ("label_selector", selectors::label_selector),
    ("field_selector", selectors::field_selector),
    ("request_path", paths::request_path),
    ("continue_token", tokens::continue_token),
    ("cel", rules::cel),
    ("body", body::body),
];

/// Calls a target.
///
/// # Panics
/// If there is none of that name, or a property is broken.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(it, _)| *it == name).expect("a target of that name");
    target(data);
}

/// To be called once by a fuzz target: panics that the product catches are no finds.
#[cfg(fuzzing)]
pub fn start() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !crate::object::schema::is_rule_running() {
            hook(info);
        }
    }));
}

/// An object that a server could hold.
fn object(text: &[u8]) -> Option<Value> {
    decode_strict(text).ok().map(|(value, _)| value).filter(Value::is_object)
}

/// The first line, and what follows.
fn first_line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[]),
    }
}
