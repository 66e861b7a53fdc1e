//! Any policies, their patterns included, over queues that come and go; see `tests/fuzzed/policies.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzzed/mod.rs"]
mod fuzzed;

fuzz_target!(|octets: &[u8]| fuzzed::policies::live(octets));
