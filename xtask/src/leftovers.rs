//! The leftover check as a command, so that the runner can execute it with the rights it needs.

use std::path::Path;

use anyhow::{Context, Result};
use evroc_tests::leftovers::{Foreign, Leftover, Snapshot};
use serde::{Deserialize, Serialize};

/// A snapshot with the foreign instances of that moment: one that was removed since is still foreign.
#[derive(Serialize, Deserialize)]
struct Saved {
    snapshot: Snapshot,
    foreign: Vec<String>,
}

/// Writes the snapshot of the machine's state.
pub fn save(file: &Path) -> Result<bool> {
    let saved = Saved { snapshot: Snapshot::take(), foreign: Foreign::registered().names() };
    let text = serde_json::to_string(&saved)?;
    std::fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
    Ok(true)
}

/// Names what has appeared since; `Ok(false)` when there is any.
pub fn compare(file: &Path) -> Result<bool> {
    let leftovers = since(file)?;
    for leftover in &leftovers {
        println!("left behind: {leftover}");
    }
    println!("leftovers: {}", leftovers.len());
    Ok(leftovers.is_empty())
}

/// Lists what has appeared since `save` wrote the file, without what belongs to foreign instances.
pub fn since(file: &Path) -> Result<Vec<Leftover>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let before: Saved = serde_json::from_str(&text).with_context(|| format!("parse {}", file.display()))?;
    let names: Vec<&str> = before.foreign.iter().map(String::as_str).collect();
    let foreign = Foreign::registered().and(Foreign::of(&names));
    Ok(Snapshot::take().since(&before.snapshot, &foreign))
}
