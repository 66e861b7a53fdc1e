//! A start on segments in which anything may stand, behind right checksums too, and what is read from them; see `sim::tampered`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sim::tampered::{Which, live};

fuzz_target!(|octets: &[u8]| live(Which::Segments, octets));
