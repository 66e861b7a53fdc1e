//! Direct reply-to on a channel: its one consumer of replies, and what makes its publishes requests.

use amq_protocol::protocol::basic;
use broker_core::message::{Content, Message};

use crate::channel::declare::Asked;
use crate::channel::{Channel, Then};
use crate::codec;
use crate::content;
use crate::exception::{Exception, ReplyCode};
use crate::names::Names;
use crate::output::Request;
use crate::reply_to::Address;
use crate::send_buffer::SendBuffer;

/// A channel's consumer of direct replies.
#[derive(Debug)]
pub(crate) struct ReplyConsumer {
    /// Where its replies are sent.
    pub(crate) address: Address,
    /// What each of its deliveries begins with; holds its tag.
    prefix: Box<[u8]>,
}

impl Channel {
    /// `basic.consume` of the queue that stands for direct replies. The tag may be given to another consumer later, as in RabbitMQ.
    pub(crate) fn consume_replies(&self, consume: &basic::Consume, names: &mut Names) -> Result<Asked, Exception> {
        let wanted = consume.consumer_tag.as_str();
        if !wanted.is_empty() && self.consumer_tagged(wanted).is_some() {
            let text = format!("attempt to reuse consumer tag '{wanted}'");
            return Err(Exception::new(ReplyCode::NotAllowed, text));
        }
        if !consume.no_ack {
            return Err(Exception::precondition("reply consumer cannot acknowledge"));
        }
        if self.replies.is_some() {
            return Err(Exception::precondition("reply consumer already set"));
        }
        let consumer_tag = if wanted.is_empty() { names.consumer() } else { wanted.into() };
        Ok((Request::ConsumeReplies, consume.nowait, Then::ConsumeReplies { consumer_tag }))
    }

    /// The driver has given the consumer its address.
    pub(crate) fn start_replies(&mut self, consumer_tag: &str, address: Address) {
        let prefix = codec::deliver_prefix(self.number, consumer_tag.as_bytes());
        self.replies = Some(Box::new(ReplyConsumer { address, prefix }));
    }

    /// `basic.cancel`: whether it was the consumer of replies, which is gone then.
    pub(crate) fn cancel_replies(&mut self, consumer_tag: &str) -> bool {
        self.replies.take_if(|replies| codec::prefix_tag(&replies.prefix) == consumer_tag.as_bytes()).is_some()
    }

    /// The message with the channel's address as its `reply-to`.
    pub(crate) fn addressed(&self, message: &Message) -> Result<Message, Exception> {
        let replies =
            self.replies.as_ref().ok_or_else(|| Exception::precondition("fast reply consumer does not exist"))?;
        content::with_reply_to(message, &replies.address.octets())
            .ok_or_else(|| Exception::internal("a request could not be given its reply address"))
    }

    /// Writes a reply, if its consumer is the one it was sent to. As in RabbitMQ, it has the number that the next delivery will have.
    pub(crate) fn deliver_reply(
        &self,
        address: &Address,
        content: Content<'_>,
        send: &mut SendBuffer,
        frame_max: u32,
    ) -> bool {
        let Some(replies) = self.replies.as_ref().filter(|replies| replies.address == *address) else { return false };
        let delivery_tag = self.unacked.next_number();
        codec::write_deliver(send, &replies.prefix, self.number, delivery_tag, false, content, frame_max);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consume(channel: &Channel, consumer_tag: &str, no_ack: bool) -> Result<Asked, Exception> {
        let consume = basic::Consume { consumer_tag: consumer_tag.into(), no_ack, ..Default::default() };
        channel.consume_replies(&consume, &mut Names::new(1))
    }

    fn refusal(asked: Result<Asked, Exception>) -> String {
        asked.unwrap_err().reply_text()
    }

    fn address(token: u8) -> Address {
        Address::new(1, 1, [token; 16])
    }

    fn message(properties: &[u8]) -> Message {
        let header = [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1][..], properties].concat();
        Message::new(b"\0\x01q", &header, b"m", false, &mut Vec::new()).unwrap()
    }

    #[test]
    fn it_is_consumed_once_and_without_acknowledgements() {
        let mut channel = Channel::new(1);
        assert_eq!(refusal(consume(&channel, "r", false)), "PRECONDITION_FAILED - reply consumer cannot acknowledge");
        assert!(matches!(consume(&channel, "r", true), Ok((Request::ConsumeReplies, false, _))));
        channel.start_replies("r", address(1));
        assert_eq!(refusal(consume(&channel, "r", true)), "PRECONDITION_FAILED - reply consumer already set");
        assert_eq!(refusal(consume(&channel, "s", false)), "PRECONDITION_FAILED - reply consumer cannot acknowledge");
        channel.add_consumer(4, "c", true);
        assert_eq!(refusal(consume(&channel, "c", true)), "NOT_ALLOWED - attempt to reuse consumer tag 'c'");
        assert!(!channel.cancel_replies("c") && channel.cancel_replies("r") && !channel.cancel_replies("r"));
        assert!(consume(&channel, "", true).is_ok());
    }

    #[test]
    fn a_request_needs_a_consumer_and_gets_its_address() {
        let mut channel = Channel::new(1);
        let request = message(b"\x02\x00\x15amq.rabbitmq.reply-to");
        assert_eq!(channel.addressed(&request).unwrap_err().text, "fast reply consumer does not exist");
        channel.start_replies("r", address(1));
        let sent = channel.addressed(&request).unwrap();
        let reply_to = content::property(sent.properties(), content::flag::REPLY_TO).unwrap();
        assert_eq!(Address::parse(reply_to), Some(address(1)));
    }

    #[test]
    fn only_its_own_address_reaches_a_consumer_and_takes_no_number() {
        let mut channel = Channel::new(1);
        let mut send = SendBuffer::default();
        let reply = message(b"\0\0");
        assert!(!channel.deliver_reply(&address(1), Content::Kept(&reply), &mut send, 4096));
        channel.start_replies("r", address(1));
        assert!(!channel.deliver_reply(&address(2), Content::Kept(&reply), &mut send, 4096));
        assert!(send.is_empty());
        assert!(channel.deliver_reply(&address(1), Content::Kept(&reply), &mut send, 4096));
        assert!(!send.is_empty());
        assert_eq!(channel.unacked.next_number(), 1);
    }
}
