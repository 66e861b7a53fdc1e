//! Numbers that only who has a key can make.

use std::fmt;

use sha2::{Digest, Sha256};

/// Random octets that never leave the process.
#[derive(Clone)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// A key of random octets.
    pub fn new(random: [u8; 32]) -> Self {
        SecretKey(random)
    }

    /// A number made of the key, of what it is for, and of numbers that tell it from others of its kind. Who knows any amount of them cannot tell
    /// another.
    pub fn token(&self, purpose: &str, numbers: [u64; 3]) -> [u8; 16] {
        let digest = Sha256::new().chain_update(self.0).chain_update((purpose.len() as u64).to_le_bytes());
        let digest = numbers
            .iter()
            .fold(digest.chain_update(purpose), |digest, number| digest.chain_update(number.to_le_bytes()));
        let octets: [u8; 32] = digest.finalize().into();
        let mut token = [0; 16];
        token.iter_mut().zip(octets).for_each(|(place, octet)| *place = octet);
        token
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_depend_on_everything_and_show_nothing() {
        let key = SecretKey::new([7; 32]);
        let token = key.token("replies", [1, 2, 3]);
        assert_eq!(token, key.token("replies", [1, 2, 3]));
        let others = [
            SecretKey::new([8; 32]).token("replies", [1, 2, 3]),
            key.token("reply", [1, 2, 3]),
            key.token("replies", [0, 2, 3]),
            key.token("replies", [1, 3, 3]),
            key.token("replies", [1, 2, 4]),
        ];
        assert!(others.iter().all(|other| *other != token));
        assert_eq!(format!("{key:?}"), "SecretKey");
    }
}
