#![no_main]

#[path = "../checks/locator.rs"]
mod locator;

libfuzzer_sys::fuzz_target!(|data: &[u8]| locator::check(data));
