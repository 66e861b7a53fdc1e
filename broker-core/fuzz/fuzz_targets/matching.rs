//! Topic and headers exchanges against naive matchers; see `tests/fuzzed/matching.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzzed/mod.rs"]
mod fuzzed;

fuzz_target!(|octets: &[u8]| fuzzed::matching::live(octets));
