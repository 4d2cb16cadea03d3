//! Writes our kinds as CustomResourceDefinitions, one YAML file each, for servers that take them: `crds FOLDER`.

use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let dir = PathBuf::from(std::env::args().nth(1).expect("usage: crds FOLDER"));
    std::fs::create_dir_all(&dir)?;
    for definition in evroc_api::definitions() {
        let name = definition.metadata.name.clone().expect("a definition has a name");
        // JSON is YAML, and needs no writer of its own.
        let text = serde_json::to_string_pretty(&definition).map_err(std::io::Error::other)?;
        std::fs::write(dir.join(format!("{name}.yaml")), text + "\n")?;
    }
    println!("{} definitions in {}", evroc_api::definitions().len(), dir.display());
    Ok(())
}
