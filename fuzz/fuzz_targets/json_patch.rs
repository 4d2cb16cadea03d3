#![no_main]

evroc_fuzz::target!("json_patch");
