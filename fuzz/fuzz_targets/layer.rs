#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| evroc_node::fuzzing::layer(data));
