//! Certificates of clients, and the names in them; see `tests/fuzzed/certificates.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzzed/mod.rs"]
mod fuzzed;

fuzz_target!(|octets: &[u8]| fuzzed::certificates::live(octets));
