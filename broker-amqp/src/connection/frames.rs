//! Frames one by one: which are due on which channel, and what is said when another comes.

use crate::allowance::{ChannelAllowance, Place};
use crate::channel::{Channel, Status};
use crate::connection::{Connection, Flow, Hold, Phase, STREAM_MIN_BYTES, Stream};
use crate::content::FIXED_BYTES;
use crate::exception::{Exception, ReplyCode};
use crate::frame::{self, HEAD_BYTES, Head, OVERHEAD_BYTES};
use crate::method;
use crate::output::Output;

impl Connection {
    /// The largest payload taken. As RabbitMQ, eight octets more than the agreed frame allows.
    #[inline]
    pub(super) fn payload_max(&self) -> u32 {
        self.frame_max
    }

    /// Takes the frame that begins here. `None` if it is not all here or must wait, else its length.
    pub(super) fn take_frame(&mut self, octets: &[u8], out: &mut Vec<Output>) -> Option<usize> {
        match self.phase {
            Phase::Header => return self.take_protocol_header(octets, out),
            Phase::Refusing => return Some(octets.len()),
            Phase::Login | Phase::Opening => {
                self.hold = Hold::Driver;
                return None;
            }
            _ => {}
        }
        let head = Head::parse(octets)?;
        if head.size > self.payload_max() {
            let why =
                format!("{{frame_too_large,{},{}}}", head.size, self.frame_max.saturating_sub(OVERHEAD_BYTES as u32));
            return self.spoiled(frame::error(head.kind, &[], &why), octets, out);
        }
        let Some(frame) = octets.get(HEAD_BYTES..head.frame_len()) else { return self.start_stream(head, octets, out) };
        let (&end, payload) = frame.split_last()?;
        if end != frame::END {
            let why = format!("{{invalid_frame_end_marker,{end}}}");
            return self.spoiled(frame::error(head.kind, payload, &why), octets, out);
        }
        match self.dispatch(head, payload, out) {
            Flow::Next => Some(head.frame_len()),
            Flow::Hold => None,
        }
    }

    /// The octets are no longer frames: nothing after this can be read.
    fn spoiled(&mut self, exception: Exception, octets: &[u8], out: &mut Vec<Output>) -> Option<usize> {
        if self.phase == Phase::Closing {
            self.finish_closing(out);
            return Some(octets.len());
        }
        match self.raise_on_connection(exception, out) {
            Flow::Hold => None,
            Flow::Next => {
                self.spoil();
                Some(octets.len())
            }
        }
    }

    /// Begins to take a large body frame of which only a part is here.
    fn start_stream(&mut self, head: Head, octets: &[u8], out: &mut Vec<Output>) -> Option<usize> {
        let wanted = head.size as usize;
        let here = octets.get(HEAD_BYTES..).unwrap_or_default();
        // With the end octet missing, the payload may still be here in full.
        let here = here.get(..wanted).unwrap_or(here);
        let channel = self.channels.find_mut(head.channel)?;
        let due = channel.is_open() && channel.content.as_ref().is_some_and(|content| content.has_header());
        let due = due && !self.publishes_wait;
        if self.phase != Phase::Running || head.kind != frame::BODY || !due || wanted - here.len() < STREAM_MIN_BYTES {
            return None;
        }
        if let Err(exception) = channel.publish_body(head.kind, here, wanted - here.len()) {
            return match self.raise_in_order(head.channel, exception, out) {
                Flow::Next => self.spoiled_silently(octets),
                Flow::Hold => None,
            };
        }
        self.stream = Some(Stream { channel: head.channel, left: wanted - here.len() });
        Some(octets.len())
    }

    fn spoiled_silently(&mut self, octets: &[u8]) -> Option<usize> {
        self.spoil();
        Some(octets.len())
    }

    /// Adds to the body that is arriving. Answers how many octets were used, at least one.
    pub(super) fn feed_stream(&mut self, octets: &[u8], out: &mut Vec<Output>) -> usize {
        let Some(stream) = &mut self.stream else { return 0 };
        let number = stream.channel;
        if stream.left > 0 {
            let now = octets.get(..stream.left).unwrap_or(octets);
            stream.left -= now.len();
            let content = self.channels.find_mut(number).and_then(|channel| channel.content.as_mut());
            let more = stream.left;
            // If the channel went away under the frame, its octets go nowhere.
            if let Some(content) = content {
                content.append(now, more);
            }
            return now.len();
        }
        self.stream = None;
        if octets.first() != Some(&frame::END) {
            let end = octets.first().copied().unwrap_or_default();
            let why = format!("{{invalid_frame_end_marker,{end}}}");
            // A hold here would lose the frame's start; nothing that follows can be read anyway.
            self.close_with(frame::error(frame::BODY, &[], &why), out);
            self.spoil();
            return octets.len();
        }
        self.finish_content(number, out);
        1
    }

    /// If a channel's content is complete, publishes it.
    fn finish_content(&mut self, number: u16, out: &mut Vec<Output>) {
        let Some(channel) = self.channels.find_mut(number) else { return };
        if channel.content.as_ref().is_none_or(|content| !content.has_header() || content.left() > 0) {
            return;
        }
        let Some(content) = channel.content.take() else { return };
        let mandatory = content.mandatory;
        if let Some((message, facts)) = content.finish(&mut self.scratch) {
            self.published(number, mandatory, message, facts, out);
        }
    }

    fn dispatch(&mut self, head: Head, payload: &[u8], out: &mut Vec<Output>) -> Flow {
        if self.phase == Phase::Closing {
            return self.closing_frame(head, payload, out);
        }
        let well_formed = match head.kind {
            frame::METHOD => payload.len() >= 4,
            frame::HEADER => payload.len() >= FIXED_BYTES,
            frame::BODY => true,
            frame::HEARTBEAT => payload.is_empty(),
            _ => false,
        };
        if head.channel > 0 && self.phase != Phase::Running {
            return self.raise_on_connection(frame::unexpected(head.kind, payload), out);
        }
        if !well_formed {
            return self.raise_on_connection(frame::error(head.kind, payload, "unknown_frame"), out);
        }
        match (head.channel, head.kind) {
            (0, frame::METHOD) => self.connection_method(payload, out),
            (0, frame::HEARTBEAT) => Flow::Next,
            (0, kind) | (_, kind @ frame::HEARTBEAT) => self.raise_on_connection(frame::unexpected(kind, payload), out),
            (number, kind) => self.channel_frame(number, kind, payload, out),
        }
    }

    fn channel_frame(&mut self, number: u16, kind: u8, payload: &[u8], out: &mut Vec<Output>) -> Flow {
        let Some(channel) = self.channels.find_mut(number) else {
            return self.frame_on_no_channel(number, kind, payload, out);
        };
        if channel.status == Status::Closing {
            return self.closing_channel_frame(number, kind, payload, out);
        }
        if channel.waiting.is_some() {
            self.hold = Hold::Channel(number);
            return Flow::Hold;
        }
        let Some(content) = &channel.content else {
            return match kind {
                frame::METHOD => self.channel_method(number, payload, out),
                _ => self.raise_on_connection(expected_method(), out),
            };
        };
        if self.publishes_wait {
            // A body may be large: the rest of a publish that has begun waits as well.
            self.hold = Hold::Publishes;
            return Flow::Hold;
        }
        let taken = if content.has_header() {
            channel.publish_body(kind, payload, 0)
        } else {
            channel.publish_header(kind, payload, self.settings.max_message_size)
        };
        match taken {
            Ok(()) => {
                self.finish_content(number, out);
                Flow::Next
            }
            Err(exception) => self.raise_in_order(number, exception, out),
        }
    }

    fn frame_on_no_channel(&mut self, number: u16, kind: u8, payload: &[u8], out: &mut Vec<Output>) -> Flow {
        let open = self.channels.len();
        let max = self.channel_max;
        if max > 0 && open >= usize::from(max) {
            let text = format!("number of channels opened ({open}) has reached the negotiated channel_max ({max})");
            return self.raise_on_connection(Exception::new(ReplyCode::NotAllowed, text), out);
        }
        if kind != frame::METHOD {
            return self.raise_on_connection(expected_method(), out);
        }
        let ids = method::ids(payload);
        let parsed = match ids {
            Some((60, 40)) => crate::channel::publish::parse_publish_method(payload).map(|_| ()),
            _ => method::parse(payload).map(|_| ()),
        };
        match (ids, parsed) {
            // A method that no client may send is not decoded either: on a closed channel that it is closed comes first.
            (_, Err(exception)) if exception.code != ReplyCode::CommandInvalid => {
                self.raise_on_connection(exception, out)
            }
            (Some((20, 10)), _) if self.orphans.contains(&number) => {
                self.hold = Hold::Channel(number);
                Flow::Hold
            }
            (Some((20, 10)), _) => {
                let mut channel = Channel::new(number);
                channel.confirms_base = self.confirms_base();
                channel.places = match self.take_places() {
                    Ok(places) => places,
                    Err(exception) => return self.raise_on_connection(exception, out),
                };
                self.channels.insert(channel);
                out.push(Output::ChannelOpened { channel: number });
                self.send_channel_open_ok(number);
                Flow::Next
            }
            (ids, _) => {
                let (class, method) = ids.unwrap_or_default();
                let exception =
                    Exception::new(ReplyCode::ChannelError, "expected 'channel.open'").during(class, method);
                self.raise_on_connection(exception, out)
            }
        }
    }

    /// Places among the channels that the node and the user may have, where there is a limit.
    fn take_places(&self) -> Result<[Option<Place>; 2], Exception> {
        let node = self.settings.node_channels.as_ref().map(ChannelAllowance::take).transpose().map_err(|max| {
            let node = &self.settings.node_name;
            let text =
                format!("number of channels opened on node '{node}' has reached the maximum allowed limit of ({max})");
            Exception::new(ReplyCode::NotAllowed, text)
        })?;
        Ok([node, self.take_place_of_user()?])
    }

    fn take_place_of_user(&self) -> Result<Option<Place>, Exception> {
        let Some(client) = &self.client else { return Ok(None) };
        let Some(allowance) = &client.allowance else { return Ok(None) };
        ChannelAllowance::take(allowance).map(Some).map_err(|max| {
            let user = client.user.as_deref().unwrap_or_default();
            let text = format!(
                "number of channels opened for user '{user}' has reached the maximum allowed user limit of ({max})"
            );
            Exception::new(ReplyCode::NotAllowed, text)
        })
    }

    /// A channel that the broker closed takes nothing but the client's word that it knows.
    fn closing_channel_frame(&mut self, number: u16, kind: u8, payload: &[u8], out: &mut Vec<Output>) -> Flow {
        match method::ids(payload).filter(|_| kind == frame::METHOD) {
            Some((20, 41)) => {
                self.channels.remove(number);
            }
            Some((20, 40)) => method::write_empty(&mut self.send, number, 20, 41),
            Some((20, 10)) => return self.raise_on_connection(second_open().during(20, 10), out),
            _ => {}
        }
        Flow::Next
    }
}

fn expected_method() -> Exception {
    Exception::new(ReplyCode::UnexpectedFrame, "expected method frame, got non method frame instead")
}

/// `channel.open` for a channel that is open, or whose closing the client has not confirmed.
pub(super) fn second_open() -> Exception {
    Exception::new(ReplyCode::ChannelError, "second 'channel.open' seen")
}
