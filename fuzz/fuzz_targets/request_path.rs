#![no_main]

evroc_fuzz::target!("request_path");
