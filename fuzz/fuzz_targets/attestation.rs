#![no_main]

#[path = "../checks/attestation.rs"]
mod attestation;

libfuzzer_sys::fuzz_target!(|data: &[u8]| attestation::check(data));
