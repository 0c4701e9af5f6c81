#![no_main]

#[path = "../checks/pkcs11_uri.rs"]
mod pkcs11_uri;

libfuzzer_sys::fuzz_target!(|data: &[u8]| pkcs11_uri::check(data));
