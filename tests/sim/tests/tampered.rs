//! Files of the store that say anything at all, a few of them with every test; `./dev fuzz journal` and `./dev fuzz segments` go on for hours.
#![allow(missing_docs)]

use proptest::prelude::*;
use sim::tampered::{Which, live};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_start_copes_with_any_journal(octets in octets()) {
        live(Which::Journal, &octets);
    }

    #[test]
    fn a_start_copes_with_any_segment(octets in octets()) {
        live(Which::Segments, &octets);
    }
}

/// Which file, and orders for it: often with numbers that are small or at an end of what they may be.
fn octets() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        0..200_u64,
        any::<u64>(),
        (0..64_u32, 0..3_u64).prop_map(|(shift, less)| (1_u64 << shift).wrapping_sub(less)),
    ];
    let order = (0..8_u8, any::<u16>(), 0..80_u16, number).prop_map(|(what, record, place, number)| {
        let parts: [&[u8]; 4] = [&[what], &record.to_le_bytes(), &place.to_le_bytes(), &number.to_le_bytes()];
        parts.concat()
    });
    (any::<u8>(), prop::collection::vec(order, 1..6)).prop_map(|(choice, orders)| {
        let mut octets = vec![choice];
        octets.extend(orders.into_iter().flatten());
        octets
    })
}
