#![no_main]

evroc_fuzz::target!("cel");
