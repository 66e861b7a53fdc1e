//! Numbers in as few octets as they need: seven bits an octet, the lowest first, the eighth says that more follow (LEB128).

/// Appends a number; one octet up to 127, ten at most.
pub(crate) fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Takes a number off the front. `None` if there is none or it does not fit 64 bits.
pub(crate) fn take(octets: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&octet, rest) = octets.split_first()?;
        *octets = rest;
        let bits = u64::from(octet & 0x7F);
        if shift == 63 && bits > 1 {
            return None;
        }
        number |= bits << shift;
        if octet & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(number in any::<u64>(), shift in 0_u32..64) {
            let number = number >> shift;
            let mut octets = Vec::new();
            put(number, &mut octets);
            octets.push(7);
            let mut rest = octets.as_slice();
            prop_assert_eq!(take(&mut rest), Some(number));
            prop_assert_eq!(rest, &[7]);
        }
    }

    #[test]
    fn what_is_cut_or_too_large_is_no_number() {
        assert_eq!(take(&mut [0x80; 3].as_slice()), None);
        assert_eq!(take(&mut [0xFF; 10].as_slice()), None);
    }
}
