//! `evroc-test-shim --dir DIR`: what `evrocd shim` does.
fn main() -> Result<(), evroc_node::shim::ShimError> {
    let dir = std::env::args_os().nth(2).unwrap_or_default();
    evroc_node::shim::run(dir.as_ref())
}
