#![no_main]

#[path = "../checks/packet_header.rs"]
mod packet_header;

libfuzzer_sys::fuzz_target!(|data: &[u8]| packet_header::check(data));
