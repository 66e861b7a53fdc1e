//! A channel's deliveries that the client has not settled, and what they take together.

use std::ops::Deref;

use broker_core::window::Window;

/// A delivery the client has not settled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unacked {
    pub(crate) queue: u64,
    pub(crate) queue_tag: u64,
    pub(crate) consumer: u32,
    /// What it takes, rounded up; of the largest messages only a part counts.
    pub(crate) kib: u16,
    pub(crate) in_tx: bool,
}

/// What a delivery counts for that takes so many octets.
#[inline]
pub(crate) fn kib(octets: usize) -> u16 {
    u16::try_from(octets.div_ceil(1024)).unwrap_or(u16::MAX)
}

/// Them, by delivery tag. Whatever adds or takes one keeps the sum.
#[derive(Debug)]
pub(crate) struct Outstanding {
    window: Window<Unacked>,
    kib: u64,
}

impl Outstanding {
    pub(crate) fn new() -> Self {
        Outstanding { window: Window::new(1), kib: 0 }
    }

    /// What they take together.
    pub(crate) fn kib(&self) -> u64 {
        self.kib
    }

    /// Notes a delivery. Returns its tag.
    #[inline]
    pub(crate) fn push(&mut self, unacked: Unacked) -> u64 {
        self.kib += u64::from(unacked.kib);
        self.window.push(unacked)
    }

    /// The tag of a delivery that needs no acknowledgement.
    #[inline]
    pub(crate) fn skip(&mut self) -> u64 {
        self.window.skip()
    }

    /// Forgets a delivery, if it is outstanding.
    #[inline]
    pub(crate) fn remove(&mut self, delivery_tag: u64) -> Option<Unacked> {
        let unacked = self.window.remove(delivery_tag)?;
        self.kib = self.kib.saturating_sub(u64::from(unacked.kib));
        Some(unacked)
    }

    /// Forgets all up to and including a tag.
    pub(crate) fn drain_through(&mut self, last: u64, mut take: impl FnMut(Unacked)) {
        let Outstanding { window, kib } = self;
        window.drain_through(last, |_, unacked| {
            *kib = kib.saturating_sub(u64::from(unacked.kib));
            take(unacked);
        });
    }

    /// Whether a transaction has settled one is noted in it.
    pub(crate) fn get_mut(&mut self, delivery_tag: u64) -> Option<&mut Unacked> {
        self.window.get_mut(delivery_tag)
    }

    /// As [`Outstanding::get_mut`], of all.
    pub(crate) fn iter_mut(&mut self) -> impl DoubleEndedIterator<Item = (u64, &mut Unacked)> {
        self.window.iter_mut()
    }
}

/// To be read it is the window it keeps.
impl Deref for Outstanding {
    type Target = Window<Unacked>;

    fn deref(&self) -> &Window<Unacked> {
        &self.window
    }
}
