#![no_main]

#[path = "../checks/card.rs"]
mod card;

libfuzzer_sys::fuzz_target!(|data: &[u8]| card::check(data));
