#![no_main]

evroc_fuzz::target!("apply");
