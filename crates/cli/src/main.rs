//! evroc: the command line of the evroc cloud.

fn main() {}
