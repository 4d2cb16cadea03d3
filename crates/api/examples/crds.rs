//! Prints our kinds as CustomResourceDefinitions, a JSON array: `cargo xtask crds` makes files of them.

fn main() {
    let definitions = serde_json::to_string(&evroc_api::definitions()).expect("a definition is JSON");
    println!("{definitions}");
}
