//! Which starts of which node are known: it tells a disk from an older copy of it.
//!
//! A start has a number: what counts the starts of the disk in the upper half, chance in the lower. So the starts that come after one in two copies of a
//! disk differ. Every disk holds the starts it has seen, and the last one that was heard of each other node. Two nodes tell each other the
//! latter, and a node that hears of a start that its disk has not seen knows that it has an older copy, whatever that has counted up to meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::store::{HEARD, LogStore, OUTDATED, lock, put_numbers};

/// A disk holds so many of its starts.
const OWN_MAX: usize = 4096;
const COUNT_SHIFT: u32 = 32;

/// The starts that a node knows of. See the module's page.
#[derive(Debug)]
pub struct Starts {
    store: LogStore,
    /// Those of this disk, the last one at the end.
    own: Vec<u64>,
    /// The last one of each other node.
    heard: Mutex<BTreeMap<u64, u64>>,
    /// Has [`Starts::hear`] write one after the other.
    writing: tokio::sync::Mutex<()>,
    outdated: AtomicBool,
}

/// How many starts of the disk there were when this one began.
pub fn count_of(start: u64) -> u64 {
    start >> COUNT_SHIFT
}

/// The starts of a disk, after one more.
pub(super) fn one_more(mut own: Vec<u64>, chance: u32) -> Vec<u64> {
    let count = own.last().map_or(0, |last| count_of(*last)) + 1;
    // With 0 in its lower half a number is that of no start.
    own.push(count << COUNT_SHIFT | u64::from(chance.max(1)));
    own.drain(..own.len().saturating_sub(OWN_MAX));
    own
}

impl Starts {
    pub(super) fn new(store: LogStore, own: Vec<u64>, heard: BTreeMap<u64, u64>) -> Starts {
        let (heard, writing, outdated) = (Mutex::new(heard), tokio::sync::Mutex::default(), AtomicBool::new(false));
        Starts { store, own, heard, writing, outdated }
    }

    /// This node's start.
    pub fn this(&self) -> u64 {
        self.own.last().copied().unwrap_or_default()
    }

    /// The last start of another node that was heard of, 0 for none.
    pub fn known(&self, node: u64) -> u64 {
        lock(&self.heard).get(&node).copied().unwrap_or_default()
    }

    /// Whether another node may be in this start, as far as is known here.
    pub fn may_be(&self, node: u64, start: u64) -> bool {
        let known = self.known(node);
        start == known || count_of(start) > count_of(known)
    }

    /// Whether what another node has last heard of this one is a start of this disk; one from before all that the disk holds counts as one.
    pub fn has_seen(&self, known: u64) -> bool {
        let first = self.own.first().copied().unwrap_or_default();
        known == 0 || self.own.contains(&known) || count_of(first) > 1 && count_of(known) < count_of(first)
    }

    /// Another node is in this start. When it returns this is on the disk.
    pub async fn hear(&self, node: u64, start: u64) -> io::Result<()> {
        let _one = self.writing.lock().await;
        let mut heard = lock(&self.heard).clone();
        if heard.insert(node, start) != Some(start) {
            let pairs: Vec<u64> = heard.iter().flat_map(|(node, start)| [*node, *start]).collect();
            self.store.set(HEARD, put_numbers(&pairs)).await?;
            *lock(&self.heard) = heard;
        }
        Ok(())
    }

    /// The start that another node is in is not to go on, nor any other from the same copy of its disk.
    pub async fn bar(&self, node: u64) -> io::Result<()> {
        let known = self.known(node);
        self.hear(node, count_of(known) << COUNT_SHIFT).await
    }

    /// This node's disk is an older copy: it is never to be opened again.
    pub async fn give_up(&self) -> io::Result<()> {
        self.outdated.store(true, Ordering::SeqCst);
        self.store.set(OUTDATED, vec![1]).await
    }

    /// Whether that has turned out.
    pub fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_of_a_copy_are_told_from_those_of_the_disk() {
        let disk = one_more(one_more(Vec::new(), 7), 8);
        let copy = disk.clone();
        let (disk, copy) = (one_more(disk, 9), one_more(copy, 10));
        assert_eq!(disk.iter().map(|start| count_of(*start)).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(disk[..2], copy[..2]);
        assert_ne!(disk[2], copy[2]);
        assert_eq!(one_more(Vec::new(), 0), [1 << 32 | 1], "no start has the number of none");
        let mut many = Vec::new();
        for chance in 0..=OWN_MAX as u32 {
            many = one_more(many, chance);
        }
        assert_eq!((many.len(), count_of(many[0])), (OWN_MAX, 2));
    }
}
