//! What the driver says: answers to requests, and what happens around the connection.

use std::time::Instant;

use amq_protocol::protocol::{AMQPClass, basic, connection, queue};

use crate::channel::deliver::Got;
use crate::channel::{Channel, Then, Waiting};
use crate::connection::methods::{CLOSE, send_cancel_ok};
use crate::connection::{Connection, Hold, Phase};
use crate::exception::{Exception, ReplyCode};
use crate::input::{Input, Reply};
use crate::method;
use crate::output::{CloseReason, GET, Outcome, Output, Settle};
use crate::send_buffer::SendBuffer;

impl Connection {
    /// Everything that is neither octets nor a delivery.
    pub fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        self.begin(now);
        match input {
            Input::LoginOk { user, impersonator } => self.login_ok(user, impersonator),
            Input::LoginRefused if self.phase == Phase::Login => self.refuse_login(out),
            Input::OpenOk if self.phase == Phase::Opening => self.open_ok(),
            Input::OpenRefused(exception) if self.phase == Phase::Opening => {
                self.close_with(exception.on_connection().during(10, 40), out);
            }
            Input::LoginRefused | Input::OpenOk | Input::OpenRefused(_) => {}
            Input::Reply { channel, reply } => self.reply(channel, reply, out),
            Input::TxCommitted { channel } => self.reply(channel, Reply::Done, out),
            Input::ConsumerCancelled { channel, consumer } => self.consumer_cancelled(channel, consumer),
            Input::Alarm { reason } => self.alarm(reason),
            Input::ForceClose(exception) => self.force_close(exception, out),
            Input::ConnectionClosed => self.connection_closed(out),
            Input::PeerGone => self.drop_socket(CloseReason::PeerGone, out),
        }
        self.end(out);
    }

    fn login_ok(&mut self, user: std::sync::Arc<str>, impersonator: bool) {
        if self.phase != Phase::Login {
            return;
        }
        if let Some(client) = &mut self.client {
            client.user = Some(user);
            client.impersonator = impersonator;
        }
        self.send_tune();
    }

    /// What the driver was asked is answered: held octets may go on.
    pub(super) fn release(&mut self) {
        if self.hold == Hold::Driver {
            self.hold = Hold::Resume;
        }
    }

    /// The answer to the one request of a channel.
    fn reply(&mut self, number: u16, reply: Reply, out: &mut Vec<Output>) {
        if let Some(place) = self.orphans.iter().position(|&orphan| orphan == number) {
            self.orphans.remove(place);
            self.answered(number);
            return give_back(number, reply, out);
        }
        let waiting = self.channels.find_mut(number).and_then(|channel| channel.waiting.take());
        let Some(waiting) = waiting else { return give_back(number, reply, out) };
        self.waiting -= 1;
        self.answered(number);
        self.delivered |= matches!(reply, Reply::GetOk { .. });
        let Some(channel) = self.channels.find_mut(number) else { return };
        let (class, method) = (waiting.class, waiting.method);
        match reply {
            Reply::Refused(exception) => {
                let exception = match (exception.class, exception.method) {
                    (0, 0) => exception.during(class, method),
                    _ => exception,
                };
                self.raise(number, exception, out);
            }
            reply => {
                if let Then::Close = waiting.then {
                    // What an acknowledgement just before the close let through came after the rest had gone back.
                    channel.requeue_all(&mut self.settling);
                    self.settling.flush(out);
                    self.unanswered += u64::from(channel.forget_confirms());
                    self.channels.remove(number);
                    method::write_empty(&mut self.send, number, 20, 41);
                    return;
                }
                let answered = answer(channel, &mut self.send, self.frame_max, *waiting, reply);
                if channel.unacked.kib() > self.settings.unacked_max_kib {
                    self.hoards = Some(number);
                }
                if let Err(reply) = answered {
                    let text = format!("no answer to a request of class {class}, method {method}");
                    give_back(number, reply, out);
                    self.raise(number, Exception::new(ReplyCode::InternalError, text).during(class, method), out);
                }
            }
        }
    }

    /// `channel.close`: the channel's deliveries go back, then the driver ends its consumers.
    pub(super) fn close_channel_by_client(&mut self, number: u16, out: &mut Vec<Output>) {
        let Some(channel) = self.channels.find_mut(number) else { return };
        channel.tx = None;
        channel.replies = None;
        channel.requeue_all(&mut self.settling);
        self.settling.flush(out);
        self.waiting += 1;
        channel.waiting = Some(Box::new(Waiting { class: 20, method: 40, nowait: false, then: Then::Close }));
        out.push(Output::Request { channel: number, request: Box::new(CLOSE) });
    }

    fn consumer_cancelled(&mut self, number: u16, handle: u32) {
        let Some(channel) = self.channels.find_mut(number) else { return };
        let Some(consumer) = channel.remove_consumer(handle) else { return };
        if channel.is_open() && self.client.as_ref().is_some_and(|client| client.can(b"consumer_cancel_notify")) {
            let cancel = basic::Cancel { consumer_tag: method::short(consumer.tag()), nowait: true };
            method::write(&mut self.send, number, &AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)));
        }
    }

    fn alarm(&mut self, reason: Option<&'static str>) {
        self.alarm = reason;
        if reason.is_some() {
            return;
        }
        if self.hold == Hold::Alarm {
            self.hold = Hold::Resume;
        }
        if std::mem::take(&mut self.blocked_sent) && self.phase == Phase::Running {
            method::write_empty(&mut self.send, 0, 10, 61);
        }
    }

    /// The client published during an alarm.
    pub(super) fn block(&mut self, out: &mut Vec<Output>) {
        let Some(reason) = self.alarm else { return };
        if self.hold == Hold::No {
            self.hold = Hold::Alarm;
            out.push(Output::PublisherBlocked);
        }
        let can = self.client.as_ref().is_some_and(|client| client.can(b"connection.blocked"));
        if can && !std::mem::replace(&mut self.blocked_sent, true) {
            let blocked = connection::Blocked { reason: method::short(reason) };
            let blocked = connection::AMQPMethod::Blocked(blocked);
            method::write(&mut self.send, 0, &AMQPClass::Connection(blocked));
        }
    }

    fn force_close(&mut self, exception: Exception, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Open | Phase::Opening | Phase::Running => self.close_with(exception.on_connection(), out),
            Phase::Closing | Phase::Closed => {}
            _ => self.drop_socket(CloseReason::Exception(Box::new(exception)), out),
        }
    }
}

/// Tells the client. The reply comes back if it does not answer the request.
fn answer(
    channel: &mut Channel,
    send: &mut SendBuffer,
    frame_max: u32,
    waiting: Waiting,
    reply: Reply,
) -> Result<(), Reply> {
    let number = channel.number;
    match (waiting.then, reply) {
        (Then::Ok(ok), Reply::Done) => {
            if !waiting.nowait {
                method::write_empty(send, number, waiting.class, ok);
            }
        }
        (Then::Commit, Reply::Done) => method::write_empty(send, number, 90, 21),
        (Then::Declare { name }, Reply::Declared { messages, consumers, .. }) => {
            if !waiting.nowait {
                let queue = method::short(&name);
                let ok = queue::DeclareOk { queue, message_count: messages, consumer_count: consumers };
                method::write(send, number, &AMQPClass::Queue(queue::AMQPMethod::DeclareOk(ok)));
            }
            channel.last_queue = Some(name);
        }
        (Then::Delete, Reply::Deleted { messages }) => {
            if !waiting.nowait {
                let ok = queue::DeleteOk { message_count: messages };
                method::write(send, number, &AMQPClass::Queue(queue::AMQPMethod::DeleteOk(ok)));
            }
        }
        (Then::Purge, Reply::Purged { messages }) => {
            if !waiting.nowait {
                let ok = queue::PurgeOk { message_count: messages };
                method::write(send, number, &AMQPClass::Queue(queue::AMQPMethod::PurgeOk(ok)));
            }
        }
        (Then::Get { no_ack }, Reply::GetOk { queue, queue_tag, redelivered, remaining, message }) => {
            let got = Got { queue, queue_tag, redelivered, remaining, message: &message };
            channel.deliver_got(&got, no_ack, send, frame_max);
        }
        (Then::Get { .. }, Reply::GetEmpty) => {
            let empty = AMQPClass::Basic(basic::AMQPMethod::GetEmpty(basic::GetEmpty {}));
            method::write(send, number, &empty);
        }
        (Then::Consume { consumer_tag, no_ack }, Reply::ConsumeOk { consumer }) => {
            if !waiting.nowait {
                send_consume_ok(send, number, &consumer_tag);
            }
            channel.add_consumer(consumer, &consumer_tag, no_ack);
        }
        (Then::ConsumeReplies { consumer_tag }, Reply::ReplyAddress(address)) => {
            if !waiting.nowait {
                send_consume_ok(send, number, &consumer_tag);
            }
            channel.start_replies(&consumer_tag, address);
        }
        (Then::Cancel { consumer, consumer_tag }, Reply::Done) => {
            channel.remove_consumer(consumer);
            if !waiting.nowait {
                send_cancel_ok(send, number, &consumer_tag);
            }
        }
        (_, reply) => return Err(reply),
    }
    Ok(())
}

fn send_consume_ok(send: &mut SendBuffer, number: u16, consumer_tag: &str) {
    let ok = basic::ConsumeOk { consumer_tag: method::short(consumer_tag) };
    method::write(send, number, &AMQPClass::Basic(basic::AMQPMethod::ConsumeOk(ok)));
}

/// A message that was fetched for a channel that is gone goes back to its queue.
fn give_back(channel: u16, reply: Reply, out: &mut Vec<Output>) {
    if let Reply::GetOk { queue, queue_tag, .. } = reply {
        let (first, last) = (queue_tag, queue_tag);
        out.push(Output::Settle(Settle { channel, queue, consumer: GET, first, last, outcome: Outcome::Requeue }));
    }
}
