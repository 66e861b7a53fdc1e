//! A link between nodes; see `tests/fuzzed/links.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/client/mod.rs"]
mod client;
#[path = "../../tests/fuzzed/mod.rs"]
mod fuzzed;

fuzz_target!(|octets: &[u8]| fuzzed::links::live(octets));
