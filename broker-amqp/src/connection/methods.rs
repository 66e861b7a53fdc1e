//! Methods on an open channel.

use amq_protocol::protocol::{AMQPClass, access, basic, channel, confirm, tx};

use crate::channel::declare::Asked;
use crate::channel::{Channel, Waiting};
use crate::codec;
use crate::connection::frames::second_open;
use crate::connection::{Connection, Flow, Hold, Phase};
use crate::exception::Exception;
use crate::method::{self, Method};
use crate::names::Names;
use crate::output::{Outcome, Output, Request, TxCommit};
use crate::send_buffer::SendBuffer;
use crate::settings::Settings;

/// `basic.nack`, bit for all up to the tag; the same bit of `basic.ack`.
const MULTIPLE: u8 = 1;
/// `basic.reject`, bit for back to the queue.
const REJECT_REQUEUE: u8 = 1;
/// `basic.nack`, bit for back to the queue.
const NACK_REQUEUE: u8 = 2;

impl Connection {
    /// A method frame on an open channel that waits for nothing.
    #[inline]
    pub(super) fn channel_method(&mut self, number: u16, payload: &[u8], out: &mut Vec<Output>) -> Flow {
        match *payload {
            [0, 60, 0, method @ (80 | 90 | 120), ref fields @ ..] => self.acknowledge(number, method, fields, out),
            // As in RabbitMQ it waits where it is, with all that comes after it.
            [0, 60, 0, 40, ..] if self.alarm.is_some() => {
                self.block(out);
                Flow::Hold
            }
            [0, 60, 0, 40, ..] if self.publishes_wait => {
                self.hold = Hold::Publishes;
                Flow::Hold
            }
            [0, 60, 0, 40, ..] => {
                let Some(channel) = self.channels.find_mut(number) else { return Flow::Next };
                match channel.publish_method(payload) {
                    Ok(()) => Flow::Next,
                    Err(exception) => self.raise_in_order(number, exception, out),
                }
            }
            _ => self.cold_method(number, payload, out),
        }
    }

    /// Takes the acknowledgements of single deliveries that follow each other here, as far as nothing is wrong with them. Answers how many octets
    /// they were.
    #[inline]
    pub(super) fn take_single_acks(&mut self, octets: &[u8]) -> usize {
        if self.phase != Phase::Running {
            return 0;
        }
        let Some((number, _)) = codec::parse_single_ack(octets) else { return 0 };
        let Some(channel) = self.channels.find_mut(number) else { return 0 };
        if !channel.is_ready() || channel.tx.is_some() {
            return 0;
        }
        let mut used = 0;
        while let Some((also, tag)) = octets.get(used..).and_then(codec::parse_single_ack)
            && also == number
            && let Some(unacked) = channel.unacked.remove(tag)
        {
            self.settling.add(number, unacked, Outcome::Ack);
            used += codec::ACK_BYTES;
        }
        used
    }

    /// `basic.ack`, `basic.reject`, `basic.nack`
    #[inline]
    fn acknowledge(&mut self, number: u16, method: u8, fields: &[u8], out: &mut Vec<Output>) -> Flow {
        let Some(acknowledgement) = codec::parse_acknowledgement(fields) else {
            let exception = method::cannot_decode(fields).during(60, method.into());
            return self.raise_on_connection(exception, out);
        };
        let bits = acknowledgement.bits;
        let (multiple, outcome) = match method {
            80 => (bits & MULTIPLE != 0, Outcome::Ack),
            90 if bits & REJECT_REQUEUE != 0 => (false, Outcome::Requeue),
            90 => (false, Outcome::Discard),
            _ if bits & NACK_REQUEUE != 0 => (bits & MULTIPLE != 0, Outcome::Requeue),
            _ => (bits & MULTIPLE != 0, Outcome::Discard),
        };
        let Some(channel) = self.channels.find_mut(number) else { return Flow::Next };
        match channel.settle(acknowledgement.tag, multiple, outcome, &mut self.settling) {
            Ok(()) => Flow::Next,
            Err(exception) => self.raise_in_order(number, exception.during(60, method.into()), out),
        }
    }

    fn cold_method(&mut self, number: u16, payload: &[u8], out: &mut Vec<Output>) -> Flow {
        if self.channels.find(number).is_some_and(|channel| channel.published_in == self.batch) {
            self.hold = Hold::Resume;
            return Flow::Hold;
        }
        let parsed = match method::parse(payload) {
            Ok(parsed) => parsed,
            Err(exception) => return self.raise_on_connection(exception, out),
        };
        let (class, method) = (parsed.class, parsed.method);
        self.settling.flush(out);
        let Some(channel) = self.channels.find_mut(number) else { return Flow::Next };
        let mut desk = Desk { send: &mut self.send, names: &mut self.names, settings: &self.settings };
        match desk.take(channel, parsed, out) {
            Ok(Next::Nothing) => Flow::Next,
            Ok(Next::Commit(commit)) => {
                self.waiting += 1;
                out.push(Output::TxCommit(Box::new(commit)));
                Flow::Next
            }
            Ok(Next::Ask((request, nowait, then))) => {
                self.waiting += 1;
                channel.waiting = Some(Box::new(Waiting { class, method, nowait, then }));
                out.push(Output::Request { channel: number, request: Box::new(request) });
                Flow::Next
            }
            Ok(Next::Recover { answer }) => {
                channel.requeue_all(&mut self.settling);
                self.settling.flush(out);
                if answer {
                    method::write_empty(&mut self.send, number, 60, 111);
                }
                Flow::Next
            }
            Ok(Next::Close) => {
                self.close_channel_by_client(number, out);
                Flow::Next
            }
            Err(exception) => self.raise_in_order(number, exception.during(class, method), out),
        }
    }

    pub(super) fn send_channel_open_ok(&mut self, number: u16) {
        let ok = AMQPClass::Channel(channel::AMQPMethod::OpenOk(channel::OpenOk {}));
        method::write(&mut self.send, number, &ok);
    }
}

/// What is left to do for a method that was understood.
enum Next {
    Nothing,
    Ask(Asked),
    Commit(TxCommit),
    Recover { answer: bool },
    Close,
}

/// What answering a method takes besides its channel.
struct Desk<'a> {
    send: &'a mut SendBuffer,
    names: &'a mut Names,
    settings: &'a Settings,
}

impl Desk<'_> {
    fn take(&mut self, channel: &mut Channel, method: Method<'_>, out: &mut Vec<Output>) -> Result<Next, Exception> {
        let table = method.table;
        match method.fields {
            AMQPClass::Basic(basic::AMQPMethod::Qos(qos)) => {
                // The one field that amq-protocol leaves out is the one that must be 0.
                let prefetch_size = method.octets.first_chunk().map_or(0, |octets| u32::from_be_bytes(*octets));
                channel.qos(prefetch_size, qos.prefetch_count, qos.global, out)?;
                method::write_empty(self.send, channel.number, 60, 11);
                Ok(Next::Nothing)
            }
            AMQPClass::Basic(basic) => self.basic(channel, basic, table),
            AMQPClass::Exchange(exchange) => channel.exchange_method(exchange, table).map(Next::Ask),
            AMQPClass::Queue(queue) => channel.queue_method(queue, table, self.names).map(Next::Ask),
            AMQPClass::Channel(method) => self.channel(channel, method),
            AMQPClass::Tx(method) => self.tx(channel, method),
            AMQPClass::Confirm(confirm::AMQPMethod::Select(select)) => {
                channel.confirm_select()?;
                if !select.nowait {
                    method::write_empty(self.send, channel.number, 85, 11);
                }
                Ok(Next::Nothing)
            }
            AMQPClass::Access(access::AMQPMethod::Request(_)) => {
                // RabbitMQ's ticket is 1, amq-protocol's would be 0.
                method::write_fields(self.send, channel.number, 30, 11, &1_u16.to_be_bytes());
                Ok(Next::Nothing)
            }
            _ => Err(Exception::unimplemented_method()),
        }
    }

    fn basic(&mut self, channel: &mut Channel, method: basic::AMQPMethod, table: &[u8]) -> Result<Next, Exception> {
        use basic::AMQPMethod;
        match method {
            AMQPMethod::Consume(consume) => {
                let max = self.settings.consumers_per_channel_max;
                channel.consume(&consume, table, self.names, max).map(Next::Ask)
            }
            AMQPMethod::Cancel(cancel) if channel.cancel_replies(cancel.consumer_tag.as_str()) => {
                if !cancel.nowait {
                    send_cancel_ok(self.send, channel.number, cancel.consumer_tag.as_str());
                }
                Ok(Next::Nothing)
            }
            AMQPMethod::Cancel(cancel) => match channel.cancel(&cancel) {
                Some(asked) => Ok(Next::Ask(asked)),
                None => {
                    if !cancel.nowait {
                        send_cancel_ok(self.send, channel.number, cancel.consumer_tag.as_str());
                    }
                    Ok(Next::Nothing)
                }
            },
            AMQPMethod::Get(get) => channel.get(&get).map(Next::Ask),
            AMQPMethod::RecoverAsync(recover) => recovery(recover.requeue, false),
            AMQPMethod::Recover(recover) => recovery(recover.requeue, true),
            _ => Err(Exception::unimplemented_method()),
        }
    }

    fn channel(&mut self, channel: &mut Channel, method: channel::AMQPMethod) -> Result<Next, Exception> {
        use channel::AMQPMethod;
        match method {
            AMQPMethod::Open(_) => Err(second_open()),
            AMQPMethod::Close(_) => Ok(Next::Close),
            AMQPMethod::Flow(flow) if flow.active => {
                let ok = AMQPMethod::FlowOk(channel::FlowOk { active: true });
                method::write(self.send, channel.number, &AMQPClass::Channel(ok));
                Ok(Next::Nothing)
            }
            AMQPMethod::Flow(_) => Err(Exception::not_implemented("active=false")),
            _ => Err(Exception::unimplemented_method()),
        }
    }

    fn tx(&mut self, channel: &mut Channel, method: tx::AMQPMethod) -> Result<Next, Exception> {
        let ok = match method {
            tx::AMQPMethod::Select(_) => {
                channel.tx_select()?;
                11
            }
            tx::AMQPMethod::Commit(_) => {
                return channel.tx_commit().map(Next::Commit);
            }
            tx::AMQPMethod::Rollback(_) => {
                channel.tx_rollback()?;
                31
            }
            _ => return Err(Exception::unimplemented_method()),
        };
        method::write_empty(self.send, channel.number, 90, ok);
        Ok(Next::Nothing)
    }
}

fn recovery(requeue: bool, answer: bool) -> Result<Next, Exception> {
    if requeue { Ok(Next::Recover { answer }) } else { Err(Exception::not_implemented("requeue=false")) }
}

pub(super) fn send_cancel_ok(send: &mut SendBuffer, number: u16, consumer_tag: &str) {
    let ok = basic::AMQPMethod::CancelOk(basic::CancelOk { consumer_tag: method::short(consumer_tag) });
    method::write(send, number, &AMQPClass::Basic(ok));
}

/// `channel.close` is a request like others, but its deliveries go back first.
pub(super) const CLOSE: Request = Request::ChannelClose;
