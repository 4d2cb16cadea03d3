#![no_main]

evroc_fuzz::target!("label_selector");
