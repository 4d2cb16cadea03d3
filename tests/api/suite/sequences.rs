//! Sequences of requests that the differential run once found, with the original's answers.

use std::path::Path;

use evroc_api_suite::differential::run::recordings;
use evroc_api_suite::differential::{Sequence, explain, play::play};

use crate::support::{Space, server};

#[tokio::test]
async fn recorded_sequences_are_answered_as_by_the_original() {
    let client = server().await.client().await.unwrap();
    let mut problems = Vec::new();
    let mut count = 0;
    for (file, all) in recordings(&Path::new(env!("CARGO_MANIFEST_DIR")).join("sequences")).unwrap() {
        for recording in all {
            count += 1;
            let space = Space::new().await;
            let sequence = Sequence { steps: recording.steps.clone() };
            let seen = play(&client, &sequence, &space.namespace).await.unwrap();
            for (index, (seen, expected)) in seen.iter().zip(&recording.answers).enumerate() {
                if seen != expected {
                    let (seen, expected) =
                        (serde_json::to_value(seen).unwrap(), serde_json::to_value(expected).unwrap());
                    let place = format!("{}: {} (step {index})", file.display(), recording.about);
                    problems.push(format!("{place}\n  found | recorded\n  {}", explain(&seen, &expected).join("\n  ")));
                    break;
                }
            }
        }
    }
    assert!(problems.is_empty(), "{} of {count} differ:\n{}", problems.len(), problems.join("\n"));
    assert!(count > 0, "no recordings were found");
}
