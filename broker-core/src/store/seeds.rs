//! Numbers that no two batches or blocks share.

use super::record::Key;

/// Hands out seeds. One goes through all 2^32 of them before it repeats one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeds {
    salt: u64,
    next: u32,
}

impl Seeds {
    pub(crate) fn new(salt: u64) -> Self {
        Seeds { salt, next: 0 }
    }

    /// A key with a seed not handed out before.
    pub(crate) fn key(&mut self) -> Key {
        self.next = self.next.wrapping_add(1);
        // An odd factor makes this a permutation; the salt starts it elsewhere at every start of the store.
        let seed = self.next.wrapping_mul(0x9E37_79B1) ^ (self.salt >> 32) as u32;
        Key { salt: self.salt, seed }
    }
}
