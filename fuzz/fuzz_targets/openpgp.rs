#![no_main]

#[path = "../checks/openpgp.rs"]
mod openpgp;

libfuzzer_sys::fuzz_target!(|data: &[u8]| openpgp::check(data));
