//! Configuration files, in one directory that is used again and again; see `tests/fuzzed/configuration.rs`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

#[path = "../../tests/fuzzed/mod.rs"]
mod fuzzed;

static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());

fuzz_target!(|octets: &[u8]| fuzzed::configuration::live(DIRECTORY.path(), octets));
