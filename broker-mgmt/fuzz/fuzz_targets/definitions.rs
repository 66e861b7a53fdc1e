//! Definitions files that say anything, into an empty catalog and out again; see `sim::imports`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sim::imports::live;

fuzz_target!(|octets: &[u8]| live(octets));
