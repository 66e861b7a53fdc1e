//! Dead letters of messages with any headers, several deaths in a row; see `tests/fuzzed/letters.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/fuzzed/mod.rs"]
mod fuzzed;

fuzz_target!(|octets: &[u8]| fuzzed::letters::live(octets));
