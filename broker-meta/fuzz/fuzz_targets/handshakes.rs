//! The handshake of two nodes; see `tests/fuzzed/handshakes.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzzed/mod.rs"]
mod fuzzed;

fuzz_target!(|octets: &[u8]| fuzzed::handshakes::live(octets));
