//! `evroc-test-unpack JOB`: what `evrocd unpack` does.
fn main() -> std::io::Result<()> {
    evroc_node::container::unpack::run(&std::env::args().nth(1).unwrap_or_default())
}
