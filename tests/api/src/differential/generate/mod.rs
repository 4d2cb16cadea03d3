//! Sequences from a seed: all verbs, patch types, several managers, selectors, pages, watches, bad input.
//!
//! [`requests`]: one request of each kind. [`values`]: their parameters and bodies.

mod requests;
mod values;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::bodies::{KINDS, object, once_in, pick};
use super::{Sequence, Step};

use requests::{APPLY, JSON, JSON_PATCH, MERGE, collection, request, with_query};
use values::{applicable, json_patch, merge_patch, sound, write_query};

/// The sequence of a seed: always the same for the same seed.
pub fn sequence(seed: u64) -> Sequence {
    let mut rng = StdRng::seed_from_u64(seed);
    let length = rng.random_range(3..16);
    // Most requests are about one kind, and most find an object there.
    let main = pick(&mut rng, KINDS);
    let mut steps: Vec<Step> = Vec::new();
    if !once_in(&mut rng, 5) {
        let body = sound(main.1, "a");
        steps.push(request("POST", with_query(collection(main.0), vec![]), JSON, Some(body)));
    }
    for _ in 0..length {
        let kind = if once_in(&mut rng, 6) { pick(&mut rng, KINDS) } else { main };
        steps.push(step(&mut rng, kind));
    }
    if once_in(&mut rng, 3) {
        let (plural, _) = pick(&mut rng, KINDS);
        let at = rng.random_range(0..steps.len());
        steps.insert(at, requests::watch(&mut rng, plural));
    }
    if once_in(&mut rng, 12) {
        let zones = zones(&mut rng);
        steps.extend(zones);
    }
    Sequence { steps }
}

/// A few steps about one object of a kind without namespaces: others exist too, so that lists ask for it alone.
fn zones(rng: &mut StdRng) -> Vec<Step> {
    let all = "/apis/test.example/v1/zones";
    let one = format!("{all}/@ns-zone");
    let count = rng.random_range(2..6);
    let mut steps = Vec::new();
    for _ in 0..count {
        let query = write_query(rng);
        let mut body = object(rng, "zones", "Zone", "@ns-zone");
        steps.push(match rng.random_range(0..8) {
            0 | 1 => request("POST", with_query(all.into(), query), JSON, Some(body)),
            2 => {
                body["metadata"]["resourceVersion"] = json!("@rv(@ns-zone)");
                request("PUT", with_query(one.clone(), query), JSON, Some(body))
            }
            3 => request("PATCH", format!("{one}?fieldManager=one&force=true"), APPLY, Some(applicable(body))),
            4 => request("PATCH", with_query(one.clone(), query), MERGE, Some(json!({"spec": body["spec"]}))),
            5 => request("GET", format!("{all}?fieldSelector=metadata.name%3D@ns-zone"), "", None),
            6 => request("DELETE", one.clone(), JSON, None),
            _ => request("DELETE", format!("{all}?fieldSelector=metadata.name%3D@ns-zone"), JSON, None),
        });
    }
    steps
}

fn name(rng: &mut StdRng) -> &'static str {
    pick(rng, &["a", "a", "a", "b", "b", "c"])
}

fn step(rng: &mut StdRng, (plural, kind): (&str, &str)) -> Step {
    let name = name(rng);
    let path = format!("{}/{name}", collection(plural));
    match rng.random_range(0..100) {
        0..18 => requests::create(rng, plural, kind, name),
        18..38 => requests::apply(rng, plural, kind, name),
        38..48 => {
            let query = write_query(rng);
            let body = merge_patch(rng, plural, kind);
            request("PATCH", with_query(path, query), MERGE, Some(body))
        }
        48..57 => {
            let query = write_query(rng);
            let body = json_patch(rng, plural);
            request("PATCH", with_query(path, query), JSON_PATCH, Some(body))
        }
        57..66 => requests::update(rng, plural, kind, name),
        66..74 => requests::write_status(rng, plural, kind, name),
        74..77 => requests::scale(rng, plural, name),
        77..80 => requests::read(rng, path),
        80..87 => requests::list(rng, plural),
        87..93 => requests::delete(rng, path),
        93..95 => requests::delete_collection(rng, plural),
        _ => requests::bad(rng, plural, kind, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_sequence() {
        assert_eq!(sequence(7), sequence(7));
        assert_ne!(sequence(7), sequence(8));
    }
}
