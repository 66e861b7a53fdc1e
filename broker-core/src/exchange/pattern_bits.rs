//! Topic patterns all at once, for when walking their trie takes too long.
//!
//! Each pattern has a row of bits: bit n says that its first n words (`#` is none) are used up. A word of the routing key moves bits on by one
//! where the pattern's next word allows it, and lets them stay where a `#` is. So a routing key costs its words times a sixty-fourth of the
//! patterns' words, whatever the patterns are.

use std::sync::Arc;

use hashbrown::HashMap;

/// A word of patterns with more places than one for each so many bits has a mask, others a list.
const BITS_PER_PLACE: usize = 64;

/// See the module's page. `L` is what is bound to a pattern.
#[derive(Clone, Debug)]
pub(super) struct PatternBits<L> {
    /// Where rows begin.
    first: Vec<u64>,
    /// Places before a `*`.
    stars: Vec<u64>,
    /// Places with a `#`.
    hashes: Vec<u64>,
    /// Places before a word.
    words: HashMap<Arc<[u8]>, Places, foldhash::quality::RandomState>,
    /// The last bit of each row.
    ends: Vec<(u32, L)>,
    len: u32,
}

#[derive(Clone, Debug)]
enum Places {
    Few(Vec<u32>),
    Many(Vec<u64>),
}

impl<L: Copy> PatternBits<L> {
    /// Compiles patterns, each given as its words.
    pub fn new<'a>(patterns: impl Iterator<Item = (Vec<&'a [u8]>, L)>) -> PatternBits<L> {
        let mut bits = PatternBits {
            first: Vec::new(),
            stars: Vec::new(),
            hashes: Vec::new(),
            words: HashMap::default(),
            ends: Vec::new(),
            len: 0,
        };
        for (pattern, bound) in patterns {
            bits.push(&pattern, bound);
        }
        bits.finish();
        bits
    }

    fn push(&mut self, pattern: &[&[u8]], bound: L) {
        let rows = self.len as usize + pattern.len() + 1;
        for mask in [&mut self.first, &mut self.stars, &mut self.hashes] {
            mask.resize(rows.div_ceil(64), 0);
        }
        set(&mut self.first, self.len);
        for word in pattern {
            match *word {
                b"#" => set(&mut self.hashes, self.len),
                b"*" => {
                    set(&mut self.stars, self.len);
                    self.len += 1;
                }
                word => {
                    let places = match self.words.get_mut(word) {
                        Some(places) => places,
                        None => self.words.entry(Arc::from(word)).or_insert(Places::Few(Vec::new())),
                    };
                    if let Places::Few(places) = places {
                        places.push(self.len);
                    }
                    self.len += 1;
                }
            }
        }
        self.ends.push((self.len, bound));
        self.len += 1;
    }

    fn finish(&mut self) {
        let len = (self.len as usize).div_ceil(64);
        for mask in [&mut self.first, &mut self.stars, &mut self.hashes] {
            mask.resize(len, 0);
        }
        for places in self.words.values_mut() {
            let Places::Few(few) = places else { continue };
            if few.len() > self.len as usize / BITS_PER_PLACE {
                let mut mask = vec![0; len];
                few.iter().for_each(|place| set(&mut mask, *place));
                *places = Places::Many(mask);
            }
        }
    }

    /// What is bound to the patterns that match a key of these words.
    pub fn matching<'a>(&self, key: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = L> {
        let mut state = self.first.clone();
        let mut next = vec![0; state.len()];
        for word in key {
            let places = self.words.get(word);
            match places {
                Some(Places::Many(mask)) => {
                    let moves = self.stars.iter().zip(mask).map(|(star, word)| star | word);
                    step(&state, moves, &self.hashes, &mut next);
                }
                _ => step(&state, self.stars.iter().copied(), &self.hashes, &mut next),
            }
            if let Some(Places::Few(places)) = places {
                places.iter().filter(|&&place| is_set(&state, place)).for_each(|place| set(&mut next, place + 1));
            }
            std::mem::swap(&mut state, &mut next);
        }
        self.ends.iter().filter(move |(end, _)| is_set(&state, *end)).map(|(_, bound)| *bound)
    }
}

/// One word of the key: bits of `state` at `moves` go on by one place, those at `stays` stay.
fn step(state: &[u64], moves: impl Iterator<Item = u64>, stays: &[u64], next: &mut [u64]) {
    let mut carry = 0;
    for (((state, moves), stays), next) in state.iter().zip(moves).zip(stays).zip(next) {
        let moved = state & moves;
        *next = (moved << 1) | carry | (state & stays);
        carry = moved >> 63;
    }
}

fn set(mask: &mut [u64], place: u32) {
    if let Some(octets) = mask.get_mut(place as usize / 64) {
        *octets |= 1 << (place % 64);
    }
}

fn is_set(mask: &[u64], place: u32) -> bool {
    mask.get(place as usize / 64).is_some_and(|octets| octets & (1 << (place % 64)) != 0)
}
