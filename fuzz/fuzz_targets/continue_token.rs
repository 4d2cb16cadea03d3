#![no_main]

evroc_fuzz::target!("continue_token");
