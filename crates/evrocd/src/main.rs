//! evrocd: the server of the evroc cloud.

fn main() {}
