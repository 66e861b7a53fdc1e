//! Consumers and deliveries.

use crate::channel::declare::Asked;
use crate::channel::unacked::kib;
use crate::channel::{Channel, Consumer, Then, Unacked};
use crate::codec;
use crate::exception::{Exception, ReplyCode};
use crate::input::Delivery;
use crate::names::Names;
use crate::output::{GET, Request};
use crate::reply_to;
use crate::send_buffer::SendBuffer;
use amq_protocol::protocol::basic;
use broker_core::message::Message;

impl Channel {
    /// `basic.consume`
    pub(crate) fn consume(
        &self,
        consume: &basic::Consume,
        table: &[u8],
        names: &mut Names,
        consumers_max: u32,
    ) -> Result<Asked, Exception> {
        let queue: Box<str> = self.queue_named(consume.queue.as_str())?.into();
        if *queue == *reply_to::QUEUE {
            return self.consume_replies(consume, names);
        }
        let wanted = consume.consumer_tag.as_str();
        if !wanted.is_empty() && self.consumer_tagged(wanted).is_some() {
            let text = format!("attempt to reuse consumer tag '{wanted}'");
            return Err(Exception::new(ReplyCode::NotAllowed, text));
        }
        if self.consumers.len() >= consumers_max as usize {
            let text = format!("reached maximum ({consumers_max}) of consumers per channel");
            return Err(Exception::new(ReplyCode::NotAllowed, text));
        }
        let consumer_tag: Box<str> = if wanted.is_empty() { names.consumer() } else { wanted.into() };
        let request = Request::Consume {
            queue,
            consumer_tag: consumer_tag.clone(),
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            no_local: consume.no_local,
            arguments: table.into(),
            prefetch: self.prefetch,
            under_channel_limit: self.limit > 0,
        };
        Ok((request, consume.nowait, Then::Consume { consumer_tag, no_ack: consume.no_ack }))
    }

    /// `basic.cancel`; `None` if there is no such consumer, which is fine.
    pub(crate) fn cancel(&self, cancel: &basic::Cancel) -> Option<Asked> {
        let consumer_tag = cancel.consumer_tag.as_str();
        let consumer = self.consumer_tagged(consumer_tag)?.handle;
        let then = Then::Cancel { consumer, consumer_tag: consumer_tag.into() };
        Some((Request::Cancel { consumer }, cancel.nowait, then))
    }

    /// `basic.get`
    pub(crate) fn get(&self, get: &basic::Get) -> Result<Asked, Exception> {
        let queue = self.queue_named(get.queue.as_str())?.into();
        Ok((Request::Get { queue, no_ack: get.no_ack }, false, Then::Get { no_ack: get.no_ack }))
    }

    /// The driver started a consumer.
    pub(crate) fn add_consumer(&mut self, handle: u32, consumer_tag: &str, no_ack: bool) {
        let prefix = codec::deliver_prefix(self.number, consumer_tag.as_bytes());
        let consumer = Consumer { handle, no_ack, prefix };
        match self.place_of(handle) {
            Ok(place) | Err(place) => self.consumers.insert(place, consumer),
        }
    }

    /// Forgets a consumer and answers its tag. Its deliveries stay outstanding.
    pub(crate) fn remove_consumer(&mut self, handle: u32) -> Option<Consumer> {
        let place = self.place_of(handle).ok()?;
        Some(self.consumers.remove(place))
    }

    /// Writes a delivery and notes it. False if there is no such consumer.
    #[inline]
    pub(crate) fn deliver(&mut self, delivery: &Delivery<'_>, send: &mut SendBuffer, frame_max: u32) -> bool {
        // Most channels have one consumer.
        let consumer = match self.consumers.as_slice() {
            [only] if only.handle == delivery.consumer => only,
            several => match several.binary_search_by_key(&delivery.consumer, |consumer| consumer.handle) {
                Ok(place) => &several[place],
                Err(_) => return false,
            },
        };
        let delivery_tag = if consumer.no_ack {
            self.unacked.skip()
        } else {
            let Delivery { queue, queue_tag, consumer, .. } = *delivery;
            let kib = kib(delivery.content.memory());
            self.unacked.push(Unacked { queue, queue_tag, consumer, kib, in_tx: false })
        };
        let Delivery { redelivered, content, .. } = *delivery;
        codec::write_deliver(send, &consumer.prefix, self.number, delivery_tag, redelivered, content, frame_max);
        true
    }

    /// Writes a `basic.get-ok` and notes the delivery.
    pub(crate) fn deliver_got(&mut self, got: &Got<'_>, no_ack: bool, send: &mut SendBuffer, frame_max: u32) {
        let Got { queue, queue_tag, redelivered, remaining, message } = *got;
        let delivery_tag = if no_ack {
            self.unacked.skip()
        } else {
            self.unacked.push(Unacked { queue, queue_tag, consumer: GET, kib: kib(message.memory()), in_tx: false })
        };
        codec::write_get_ok(send, self.number, delivery_tag, redelivered, remaining, message, frame_max);
    }

    pub(crate) fn consumer_tagged(&self, consumer_tag: &str) -> Option<&Consumer> {
        self.consumers.iter().find(|consumer| codec::prefix_tag(&consumer.prefix) == consumer_tag.as_bytes())
    }

    fn place_of(&self, handle: u32) -> Result<usize, usize> {
        self.consumers.binary_search_by_key(&handle, |consumer| consumer.handle)
    }
}

/// A message that `basic.get` fetched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Got<'a> {
    pub(crate) queue: u64,
    pub(crate) queue_tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) remaining: u32,
    pub(crate) message: &'a Message,
}

impl Consumer {
    /// The consumer's tag.
    pub(crate) fn tag(&self) -> &str {
        std::str::from_utf8(codec::prefix_tag(&self.prefix)).unwrap_or_default()
    }
}
