//! Names the broker makes for queues and consumers that came without one.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Makes names that are unique as far as the connection's seed is.
#[derive(Debug)]
pub(crate) struct Names {
    state: u128,
}

impl Names {
    pub(crate) fn new(seed: u128) -> Names {
        Names { state: seed }
    }

    /// A name for a queue: `amq.gen-` and 22 characters.
    pub(crate) fn queue(&mut self) -> Box<str> {
        self.name("amq.gen-")
    }

    /// A name for a consumer: `amq.ctag-` and 22 characters.
    pub(crate) fn consumer(&mut self) -> Box<str> {
        self.name("amq.ctag-")
    }

    fn name(&mut self, prefix: &str) -> Box<str> {
        // The steps of splitmix64 on two halves: every name of a connection differs, and neighbours do not look alike.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let mut octets = [0; 16];
        let (low, high) = octets.split_at_mut(8);
        low.copy_from_slice(&mix(self.state as u64).to_be_bytes());
        high.copy_from_slice(&mix((self.state >> 64) as u64).to_be_bytes());
        let mut name = String::with_capacity(prefix.len() + 22);
        name.push_str(prefix);
        URL_SAFE_NO_PAD.encode_string(octets, &mut name);
        name.into_boxed_str()
    }
}

fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_rabbitmqs_shape_and_differ() {
        let mut names = Names::new(1);
        let (first, second) = (names.queue(), names.consumer());
        assert!(first.starts_with("amq.gen-") && first.len() == "amq.gen-".len() + 22);
        assert!(second.starts_with("amq.ctag-") && second.len() == "amq.ctag-".len() + 22);
        assert_ne!(first[8..], second[9..]);
        assert!(!first.contains('='));
    }
}
