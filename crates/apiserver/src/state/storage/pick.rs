//! Extracts a few values from a document without building the rest of it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Returns the values at `paths` (`.spec.running`) that exist. The document is read once.
///
/// # Errors
/// If the bytes are not JSON.
pub fn pick(json: &[u8], paths: &[String]) -> Result<Vec<Option<Value>>, serde_json::Error> {
    let mut found = vec![None; paths.len()];
    if paths.is_empty() {
        return Ok(found);
    }
    let wanted = paths.iter().enumerate();
    let wanted = wanted.map(|(number, path)| (number, path.strip_prefix('.').unwrap_or(path))).collect();
    Below { wanted, found: &mut found }.deserialize(&mut serde_json::Deserializer::from_slice(json))?;
    Ok(found)
}

/// The paths below the current position: their numbers and remaining steps.
struct Below<'a> {
    wanted: Vec<(usize, &'a str)>,
    found: &'a mut [Option<Value>],
}

impl<'de> DeserializeSeed<'de> for Below<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.wanted.iter().all(|(_, rest)| !rest.is_empty()) {
            return deserializer.deserialize_any(self);
        }
        // The value itself is requested, and perhaps values inside it.
        let whole: Value = serde::Deserialize::deserialize(deserializer)?;
        for (number, rest) in self.wanted {
            let steps = rest.split('.').filter(|step| !step.is_empty());
            self.found[number] = steps.into_iter().try_fold(&whole, |at, step| at.as_object()?.get(step)).cloned();
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Below<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            let below = self.wanted.iter().filter_map(|(number, path)| {
                let (first, rest) = path.split_once('.').unwrap_or((path, ""));
                (first == key).then_some((*number, rest))
            });
            let wanted: Vec<_> = below.collect();
            if wanted.is_empty() {
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Below { wanted, found: &mut *self.found })?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-c\"\\\\]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-c]", inner, 0..4).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_what_is_found_in_the_whole(
            document in document(), paths in prop::collection::vec("(\\.[a-c]){1,4}", 0..4)
        ) {
            let whole = |path: &String| {
                let steps = path.split('.').filter(|step| !step.is_empty());
                steps.into_iter().try_fold(&document, |at, step| at.as_object()?.get(step)).cloned()
            };
            let picked = pick(document.to_string().as_bytes(), &paths).unwrap();
            prop_assert_eq!(picked, paths.iter().map(whole).collect::<Vec<_>>());
        }
    }

    #[test]
    fn invalid_json_is_an_error() {
        assert!(pick(b"{\"a\": 1", &[".b".into()]).is_err());
    }
}
