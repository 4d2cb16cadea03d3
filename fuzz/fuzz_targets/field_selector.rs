#![no_main]

evroc_fuzz::target!("field_selector");
