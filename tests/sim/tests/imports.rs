//! Definitions files changed at random.
#![allow(missing_docs)]

use proptest::collection::vec;
use proptest::prelude::*;
use sim::imports::live;

#[test]
fn the_recorded_file_comes_out_as_it_went_in() {
    live(&[]);
}

proptest! {
    #[test]
    fn a_changed_file_is_refused_or_comes_out_as_it_went_in(octets in vec(any::<u8>(), 4..64)) {
        live(&octets);
    }
}
