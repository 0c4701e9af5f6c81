#![no_main]

#[path = "../checks/piv.rs"]
mod piv;

libfuzzer_sys::fuzz_target!(|data: &[u8]| piv::check(data));
