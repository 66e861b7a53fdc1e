//! A channel: what it has delivered and not heard of, what it publishes, and the one request it waits for.

pub(crate) mod ack;
pub(crate) mod confirm;
pub(crate) mod declare;
pub(crate) mod deliver;
pub(crate) mod overdue;
pub(crate) mod publish;
pub(crate) mod qos;
pub(crate) mod replies;
pub(crate) mod tx;
pub(crate) mod unacked;

use crate::allowance::Place;
use crate::content::Content;
use confirm::Confirms;
use overdue::Marks;
use replies::ReplyConsumer;
use tx::Tx;
use unacked::Outstanding;
pub(crate) use unacked::Unacked;

/// One channel of a connection.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) number: u16,
    pub(crate) status: Status,
    /// The batch of octets in which it last published. What must not overtake those publishes waits for the next batch.
    pub(crate) published_in: u32,
    /// Unacknowledged deliveries that consumers started from now on may have; 0 = any.
    pub(crate) prefetch: u16,
    /// Unacknowledged deliveries over all consumers; 0 = any.
    pub(crate) limit: u16,
    /// Its confirms are to be flushed at the end of the driver's turn.
    pub(crate) to_flush: bool,
    /// Sorted by handle.
    pub(crate) consumers: Vec<Consumer>,
    pub(crate) replies: Option<Box<ReplyConsumer>>,
    pub(crate) unacked: Outstanding,
    /// When the outstanding deliveries were made; none before anybody looked.
    pub(crate) marks: Option<Box<Marks>>,
    pub(crate) content: Option<Box<Content>>,
    pub(crate) waiting: Option<Box<Waiting>>,
    pub(crate) confirms: Option<Box<Confirms>>,
    /// From where its publishes are numbered for the driver.
    pub(crate) confirms_base: u64,
    pub(crate) tx: Option<Box<Tx>>,
    /// The queue that an empty name stands for.
    pub(crate) last_queue: Option<Box<str>>,
    /// Its places among the channels that the node and its user may have, while it is open.
    pub(crate) places: [Option<Place>; 2],
}

/// Whether a channel can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It can.
    Open,
    /// The broker closed it and waits for the client to say that it knows.
    Closing,
}

/// A consumer, as the channel knows it.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) handle: u32,
    pub(crate) no_ack: bool,
    /// What each of its deliveries begins with; holds its tag.
    pub(crate) prefix: Box<[u8]>,
}

/// The request a channel waits for.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) class: u16,
    pub(crate) method: u16,
    /// The client wants no answer.
    pub(crate) nowait: bool,
    pub(crate) then: Then,
}

/// What becomes of the answer.
#[derive(Debug)]
pub(crate) enum Then {
    /// The method's `-ok`, which has this number.
    Ok(u16),
    /// `queue.declare-ok`
    Declare { name: Box<str> },
    /// `queue.delete-ok`
    Delete,
    /// `queue.purge-ok`
    Purge,
    /// `basic.get-ok` or `basic.get-empty`
    Get { no_ack: bool },
    /// `basic.consume-ok`, and a new consumer.
    Consume { consumer_tag: Box<str>, no_ack: bool },
    /// `basic.consume-ok`, and the channel is sent direct replies.
    ConsumeReplies { consumer_tag: Box<str> },
    /// `basic.cancel-ok`, and a consumer less.
    Cancel { consumer: u32, consumer_tag: Box<str> },
    /// `channel.close-ok`, and the channel is gone.
    Close,
    /// `tx.commit-ok`
    Commit,
}

impl Channel {
    pub(crate) fn new(number: u16) -> Channel {
        Channel {
            number,
            status: Status::Open,
            published_in: 0,
            prefetch: 0,
            limit: 0,
            to_flush: false,
            consumers: Vec::new(),
            replies: None,
            unacked: Outstanding::new(),
            marks: None,
            content: None,
            waiting: None,
            confirms: None,
            confirms_base: 0,
            tx: None,
            last_queue: None,
            places: [None, None],
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.status == Status::Open
    }

    /// It ends: nobody hears of its publishes any more. Whether some were unanswered.
    pub(crate) fn forget_confirms(&mut self) -> bool {
        self.confirms.take().is_some_and(|confirms| confirms.open() > 0)
    }

    fn memory(&self) -> usize {
        let consumers: usize = self.consumers.iter().map(|consumer| consumer.prefix.len()).sum();
        size_of::<Channel>()
            + self.consumers.capacity() * size_of::<Consumer>()
            + consumers
            + self.unacked.len() * size_of::<Unacked>()
            + self.content.as_ref().map_or(0, |content| content.memory())
    }

    /// Nothing is half done: it can take a publish.
    pub(crate) fn is_ready(&self) -> bool {
        self.status == Status::Open && self.waiting.is_none() && self.content.is_none()
    }
}

/// The channels of a connection, found fast when clients number them from 1 as all of them do.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    /// Sorted by number. Boxed, so that opening one among many moves pointers and not channels.
    #[allow(clippy::vec_box)]
    list: Vec<Box<Channel>>,
}

impl Channels {
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn find(&self, number: u16) -> Option<&Channel> {
        self.list.get(self.place(number).ok()?).map(|channel| &**channel)
    }

    #[inline]
    pub(crate) fn find_mut(&mut self, number: u16) -> Option<&mut Channel> {
        let place = self.place(number).ok()?;
        self.list.get_mut(place).map(|channel| &mut **channel)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Channel> {
        self.list.iter_mut().map(|channel| &mut **channel)
    }

    pub(crate) fn insert(&mut self, channel: Channel) {
        if let Err(place) = self.place(channel.number) {
            self.list.insert(place, Box::new(channel));
        }
    }

    pub(crate) fn remove(&mut self, number: u16) -> Option<Box<Channel>> {
        let place = self.place(number).ok()?;
        Some(self.list.remove(place))
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = u16> {
        self.list.iter().map(|channel| channel.number)
    }

    /// What the channels hold in memory, about.
    pub(crate) fn memory(&self) -> usize {
        self.list.capacity() * size_of::<Box<Channel>>()
            + self.list.iter().map(|channel| channel.memory()).sum::<usize>()
    }

    #[inline]
    fn place(&self, number: u16) -> Result<usize, usize> {
        let guess = usize::from(number).wrapping_sub(1);
        match self.list.get(guess) {
            Some(channel) if channel.number == number => Ok(guess),
            _ => self.list.binary_search_by_key(&number, |channel| channel.number),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_found_whatever_their_numbers() {
        let mut channels = Channels::default();
        for number in [5, 1, 65_535, 2] {
            channels.insert(Channel::new(number));
        }
        assert_eq!(channels.numbers().collect::<Vec<_>>(), [1, 2, 5, 65_535]);
        for number in [1, 2, 5, 65_535] {
            assert_eq!(channels.find_mut(number).map(|channel| channel.number), Some(number));
        }
        assert!(channels.find(3).is_none());
        assert!(channels.remove(2).is_some());
        assert!(channels.find(2).is_none() && channels.len() == 3);
    }

    #[test]
    fn an_unacked_delivery_is_small() {
        assert_eq!(size_of::<Option<Unacked>>(), 24);
        assert!(size_of::<Channel>() <= 256, "{}", size_of::<Channel>());
    }
}
