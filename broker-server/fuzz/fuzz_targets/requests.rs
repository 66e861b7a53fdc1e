//! Operators' requests, on a catalog; see `tests/fuzzed/requests.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzzed/mod.rs"]
mod fuzzed;

fuzz_target!(|octets: &[u8]| fuzzed::requests::live(octets));
