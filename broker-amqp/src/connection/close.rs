//! Endings: of a channel, of the connection, by either side or by none.

use amq_protocol::protocol::{AMQPClass, channel, connection};

use crate::channel::Status;
use crate::connection::{Connection, Flow, Hold, Phase};
use crate::exception::{Exception, ReplyCode, Scope};
use crate::frame::{self, Head};
use crate::method;
use crate::output::{CloseReason, Output};

/// A channel's publishes are numbered from a multiple of this power of two...
const CONFIRMS_BASE_BITS: u32 = 40;
/// ...of which there are so many: the driver's highest bit is its own.
const CONFIRMS_BASES: u64 = 1 << 22;

/// A connection that is being closed.
#[derive(Debug)]
pub(super) struct Closing {
    reason: CloseReason,
    /// `close`, or `close-ok` if the client closes, was sent.
    sent: bool,
    /// The octets that come are no longer frames.
    spoiled: bool,
}

impl Connection {
    /// Raises an exception in its place among the publishes of this batch.
    pub(super) fn raise_in_order(&mut self, number: u16, exception: Exception, out: &mut Vec<Output>) -> Flow {
        if exception.scope == Scope::Connection {
            return self.raise_on_connection(exception, out);
        }
        if self.channels.find(number).is_some_and(|channel| channel.published_in == self.batch) {
            self.hold = Hold::Resume;
            return Flow::Hold;
        }
        self.raise(number, exception, out);
        Flow::Next
    }

    /// Raises a connection exception in its place among the publishes of this batch.
    pub(super) fn raise_on_connection(&mut self, exception: Exception, out: &mut Vec<Output>) -> Flow {
        if self.must_wait() {
            return Flow::Hold;
        }
        match self.phase {
            Phase::Tune if exception.code == ReplyCode::NotAllowed => self.close_with(exception, out),
            Phase::Header | Phase::Start | Phase::Login | Phase::Tune => self.refuse(exception),
            _ => self.close_with(exception, out),
        }
        Flow::Next
    }

    /// Whether what ends the connection has to wait for publishes or requests that came before it. If so, octets are held from here on.
    pub(super) fn must_wait(&mut self) -> bool {
        if self.published_in == self.batch {
            self.hold = Hold::Resume;
        } else if self.waiting > 0 {
            self.hold = Hold::Answers;
        }
        self.hold != Hold::No
    }

    /// Raises an exception here and now.
    pub(super) fn raise(&mut self, number: u16, exception: Exception, out: &mut Vec<Output>) {
        match exception.scope {
            Scope::Connection => self.close_with(exception, out),
            Scope::Channel => {
                self.end_channel(number, out);
                let Some(channel) = self.channels.find_mut(number) else { return };
                channel.status = Status::Closing;
                let close = channel::Close {
                    reply_code: exception.code.number(),
                    reply_text: method::short(&exception.reply_text()),
                    class_id: exception.class,
                    method_id: exception.method,
                };
                let close = AMQPClass::Channel(channel::AMQPMethod::Close(close));
                method::write(&mut self.send, number, &close);
            }
        }
    }

    /// The client broke the handshake: RabbitMQ says nothing and hangs up after a while.
    fn refuse(&mut self, exception: Exception) {
        self.hang_up_later(CloseReason::Exception(Box::new(exception)));
    }

    fn hang_up_later(&mut self, reason: CloseReason) {
        self.phase = Phase::Refusing;
        self.deadline = Some(self.now + self.settings.login_refused_delay);
        // Nothing is held for a client that will not be heard: what it sent ahead of the answer goes, and what comes now is not kept.
        self.hold = Hold::No;
        self.pending = Vec::new();
        self.pending_at = 0;
        self.closing = Some(Box::new(Closing { reason, sent: false, spoiled: false }));
    }

    /// The login was refused: says so if the client would understand, and hangs up after a while.
    pub(super) fn refuse_login(&mut self, out: &mut Vec<Output>) {
        let told = self.client.as_ref().is_some_and(|client| client.can(b"authentication_failure_close"));
        if told {
            let text = format!(
                "Login was refused using authentication mechanism {}. For details see the broker logfile.",
                self.mechanism()
            );
            return self.close_with(Exception::new(ReplyCode::AccessRefused, text).on_connection(), out);
        }
        self.hang_up_later(CloseReason::LoginRefused);
    }

    /// The broker closes the connection. The client hears of it when all that was its own is gone.
    pub(super) fn close_with(&mut self, exception: Exception, out: &mut Vec<Output>) {
        self.begin_closing(CloseReason::Exception(Box::new(exception)), out);
    }

    /// The client closes the connection.
    pub(super) fn close_by_client(&mut self, out: &mut Vec<Output>) {
        self.begin_closing(CloseReason::ByClient, out);
    }

    fn begin_closing(&mut self, reason: CloseReason, out: &mut Vec<Output>) {
        if matches!(self.phase, Phase::Closing | Phase::Closed) {
            return;
        }
        self.end_channels(out);
        self.phase = Phase::Closing;
        self.hold = if self.hold == Hold::No { Hold::No } else { Hold::Resume };
        self.heartbeat.stop();
        self.deadline = Some(self.now + self.settings.close_ok_timeout);
        self.closing = Some(Box::new(Closing { reason, sent: false, spoiled: false }));
        out.push(Output::ConnectionClosing);
    }

    /// What was the connection's own is gone: now the client may know.
    pub(super) fn connection_closed(&mut self, out: &mut Vec<Output>) {
        let Some(closing) = self.closing.as_mut().filter(|closing| !closing.sent) else { return };
        if self.phase != Phase::Closing {
            return;
        }
        closing.sent = true;
        match &closing.reason {
            CloseReason::Exception(exception) => {
                let close = connection::Close {
                    reply_code: exception.code.number(),
                    reply_text: method::short(&exception.reply_text()),
                    class_id: exception.class,
                    method_id: exception.method,
                };
                let close = AMQPClass::Connection(connection::AMQPMethod::Close(close));
                method::write(&mut self.send, 0, &close);
            }
            _ => {
                method::write_empty(&mut self.send, 0, 10, 51);
                self.finish_closing(out);
            }
        }
    }

    /// While the connection closes, only `close` and `close-ok` count.
    pub(super) fn closing_frame(&mut self, head: Head, payload: &[u8], out: &mut Vec<Output>) -> Flow {
        let Some(closing) = &self.closing else { return Flow::Next };
        if closing.spoiled || head.channel != 0 || head.kind != frame::METHOD {
            return Flow::Next;
        }
        match method::ids(payload) {
            Some((10, 50)) => method::write_empty(&mut self.send, 0, 10, 51),
            Some((10, 51)) if closing.sent => self.finish_closing(out),
            _ => {}
        }
        Flow::Next
    }

    /// Nothing more can be read.
    pub(super) fn spoil(&mut self) {
        if let Some(closing) = &mut self.closing {
            closing.spoiled = true;
        }
    }

    /// The last output.
    pub(super) fn finish_closing(&mut self, out: &mut Vec<Output>) {
        if self.phase == Phase::Closed {
            return;
        }
        self.phase = Phase::Closed;
        self.hold = Hold::No;
        self.deadline = None;
        self.heartbeat.stop();
        self.pending = Vec::new();
        self.pending_at = 0;
        self.stream = None;
        let reason = self.closing.take().map_or(CloseReason::PeerGone, |closing| closing.reason);
        out.push(Output::Close { reason });
    }

    /// The connection ends without a word to the client.
    pub(super) fn drop_socket(&mut self, reason: CloseReason, out: &mut Vec<Output>) {
        if self.phase == Phase::Closed {
            return;
        }
        // What is being closed already keeps its reason, and what was its own is gone.
        if self.phase != Phase::Closing {
            self.end_channels(out);
            out.push(Output::ConnectionClosing);
            self.closing = Some(Box::new(Closing { reason, sent: true, spoiled: true }));
        }
        self.finish_closing(out);
    }

    pub(super) fn deadline_passed(&mut self, out: &mut Vec<Output>) {
        match self.phase {
            Phase::Refusing | Phase::Closing => self.finish_closing(out),
            Phase::Closed => self.deadline = None,
            _ => self.drop_socket(CloseReason::HandshakeTimeout, out),
        }
    }

    /// Ends all channels: their deliveries go back, their consumers are to go.
    fn end_channels(&mut self, out: &mut Vec<Output>) {
        let numbers: Vec<u16> = self.channels.numbers().collect();
        for number in numbers {
            self.end_channel(number, out);
            self.channels.remove(number);
        }
    }

    /// Ends a channel, but leaves its number taken.
    pub(super) fn end_channel(&mut self, number: u16, out: &mut Vec<Output>) {
        let Some(channel) = self.channels.find_mut(number).filter(|channel| channel.is_open()) else { return };
        // Deliveries a transaction settled and did not commit go back like the others.
        channel.tx = None;
        channel.requeue_all(&mut self.settling);
        self.settling.flush(out);
        out.push(Output::ChannelClosed { channel: number });
        channel.consumers = Vec::new();
        channel.replies = None;
        channel.content = None;
        self.unanswered += u64::from(channel.forget_confirms());
        channel.last_queue = None;
        channel.places = [None, None];
        if channel.waiting.take().is_some() {
            self.waiting -= 1;
            self.orphans.push(number);
        }
        self.answered(number);
    }

    /// From where publishes are numbered on a channel that is opened now: what was left unanswered on earlier ones has other numbers.
    pub(super) fn confirms_base(&self) -> u64 {
        (self.unanswered % CONFIRMS_BASES) << CONFIRMS_BASE_BITS
    }

    /// A channel waits no longer: octets that are held for that may go on.
    pub(super) fn answered(&mut self, number: u16) {
        if self.hold == Hold::Channel(number) || self.hold == Hold::Answers && self.waiting == 0 {
            self.hold = Hold::Resume;
        }
    }
}
