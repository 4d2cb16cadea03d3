#![no_main]

evroc_fuzz::target!("merge_patch");
