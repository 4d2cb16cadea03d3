//! Shared by the fuzz targets: the call of the property in `evroc_apiserver::fuzzing`, and mutations that know JSON.

use libfuzzer_sys::fuzzer_mutate;
use serde_json::{Map, Value};

/// A fuzz target: the property of that name, with inputs that are mutated by lines.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(init: evroc_apiserver::fuzzing::start(), |data: &[u8]| {
            evroc_apiserver::fuzzing::run($name, data)
        });
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            $crate::mutate(data, size, max_size, seed)
        });
    };
}

/// A small generator of numbers; what it gives depends on the seed alone, so that a run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % bound.max(1)
    }
}

/// Mutates an input: mostly one of its lines, as JSON where it is JSON, else byte by byte.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random(u64::from(seed) + 1);
    let mut lines: Vec<Vec<u8>> = data[..size].split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let chosen = random.below(lines.len());
    let parsed = serde_json::from_slice::<Value>(&lines[chosen]).ok().filter(|it| it.is_object() || it.is_array());
    let Some(mut value) = parsed.filter(|_| random.below(4) > 0) else {
        return fuzzer_mutate(data, size, max_size);
    };
    for _ in 0..=random.below(3) {
        change(&mut value, &mut random);
    }
    lines[chosen] = value.to_string().into_bytes();
    if random.below(16) == 0 {
        let copy = lines[random.below(lines.len())].clone();
        lines.push(copy);
    }
    let whole = lines.join(&b'\n');
    if whole.len() > max_size {
        return fuzzer_mutate(data, size, max_size);
    }
    data[..whole.len()].copy_from_slice(&whole);
    whole.len()
}

/// Changes a value at a random place.
fn change(value: &mut Value, random: &mut Random) {
    let other = somewhere(value, random).clone();
    let place = somewhere_mut(value, random);
    match random.below(6) {
        0 => *place = scalar(random),
        1 => *place = other,
        2 => *place = Value::Array(vec![place.take()]),
        _ => match place {
            Value::Array(items) => match random.below(3) {
                0 if !items.is_empty() => drop(items.remove(random.below(items.len()))),
                1 if !items.is_empty() => items.push(items[random.below(items.len())].clone()),
                _ => items.push(other),
            },
            Value::Object(map) => change_map(map, other, random),
            Value::String(text) => change_text(text, random),
            Value::Number(number) => {
                let near = number.as_i64().unwrap_or_default().wrapping_add(random.below(5) as i64 - 2);
                *place = near.into();
            }
            other => *other = scalar(random),
        },
    }
}

fn change_map(map: &mut Map<String, Value>, other: Value, random: &mut Random) {
    let keys: Vec<String> = map.keys().cloned().collect();
    let key = keys.get(random.below(keys.len().max(1))).cloned().unwrap_or_else(|| "a".into());
    match random.below(4) {
        0 => drop(map.shift_remove(&key)),
        1 => drop(map.insert(key, Value::Null)),
        2 => drop(map.insert(format!("{key}{}", ["a", "~", "/", "."][random.below(4)]), other)),
        _ => drop(map.insert(key, other)),
    }
}

/// Pointers grow and lose steps; other texts lose and gain letters.
fn change_text(text: &mut String, random: &mut Random) {
    const PIECES: [&str; 14] = ["/a", "/0", "/-", "/-1", "~0", "~1", "a", "b", "1", "é", "\\", "\"", "f:", "remove"];
    match random.below(5) {
        0 => {
            text.pop();
        }
        1 => text.truncate(text.rfind('/').unwrap_or(0)),
        2 => {
            const OPERATIONS: [&str; 6] = ["add", "remove", "replace", "move", "copy", "test"];
            *text = OPERATIONS[random.below(6)].into();
        }
        _ => text.push_str(PIECES[random.below(PIECES.len())]),
    }
}

fn scalar(random: &mut Random) -> Value {
    const NUMBERS: [i64; 8] = [0, 1, -1, 80, i64::MAX, i64::MIN, 1 << 53, 10_000];
    match random.below(9) {
        0 => Value::Null,
        1 => true.into(),
        2 => Value::Object(Map::new()),
        3 => Value::Array(Vec::new()),
        4 => NUMBERS[random.below(8)].into(),
        5 => [0.5, 1e300, -0.0, 1e-7, 9.3e18][random.below(5)].into(),
        6 => "".into(),
        _ => ["a", "b", "x", "/a"][random.below(4)].into(),
    }
}

fn somewhere<'a>(value: &'a Value, random: &mut Random) -> &'a Value {
    if random.below(4) == 0 {
        return value;
    }
    match value {
        Value::Array(items) if !items.is_empty() => somewhere(&items[random.below(items.len())], random),
        Value::Object(map) if !map.is_empty() => {
            map.values().nth(random.below(map.len())).map_or(value, |it| somewhere(it, random))
        }
        _ => value,
    }
}

fn somewhere_mut<'a>(value: &'a mut Value, random: &mut Random) -> &'a mut Value {
    let is_leaf = match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => true,
    };
    if is_leaf || random.below(4) == 0 {
        return value;
    }
    match value {
        Value::Array(items) => {
            let index = random.below(items.len());
            somewhere_mut(&mut items[index], random)
        }
        Value::Object(map) => {
            let index = random.below(map.len());
            match map.values_mut().nth(index) {
                Some(it) => somewhere_mut(it, random),
                None => unreachable!("an index below the length"),
            }
        }
        leaf => leaf,
    }
}
