//! Publishes that do not come in one piece: method, header and body frames, each with its own rules.

use crate::channel::Channel;
use crate::channel::confirm::Confirms;
use crate::codec::{IMMEDIATE, MANDATORY};
use crate::content::{self, Content, FIXED_BYTES};
use crate::exception::{Exception, ReplyCode};
use crate::frame;
use crate::method::cannot_decode;

/// Class of a publish.
pub(crate) const BASIC: u16 = 60;
/// Method of a publish.
pub(crate) const PUBLISH: u16 = 40;

impl Channel {
    /// `confirm.select`
    pub(crate) fn confirm_select(&mut self) -> Result<(), Exception> {
        if self.tx.is_some() {
            return Err(Exception::precondition("cannot switch from tx to confirm mode"));
        }
        self.confirms.get_or_insert_with(|| Box::new(Confirms::new(self.confirms_base)));
        Ok(())
    }

    /// `basic.publish`: `payload` with class and method. Its header frame is due next.
    pub(crate) fn publish_method(&mut self, payload: &[u8]) -> Result<(), Exception> {
        let (route, bits) = parse_publish_method(payload)?;
        if bits & IMMEDIATE != 0 {
            return Err(Exception::not_implemented("immediate=true").during(BASIC, PUBLISH));
        }
        self.content = Some(Box::new(Content::new(route, bits & MANDATORY != 0)));
        Ok(())
    }

    /// The frame after `basic.publish`. Its body is due next, unless it is empty.
    pub(crate) fn publish_header(&mut self, kind: u8, payload: &[u8], message_max_bytes: u64) -> Result<(), Exception> {
        let fail = |text: String| Err(Exception::new(ReplyCode::UnexpectedFrame, text).during(BASIC, PUBLISH));
        let Some(&[c0, c1, w0, w1, s0, s1, s2, s3, s4, s5, s6, s7]) =
            payload.first_chunk::<FIXED_BYTES>().filter(|_| kind == frame::HEADER)
        else {
            return fail("expected content header for class 60, got non content header frame instead".into());
        };
        if [w0, w1] != [0, 0] {
            return fail("expected content header for class 60, got non content header frame instead".into());
        }
        let class = u16::from_be_bytes([c0, c1]);
        if class != BASIC {
            return fail(format!("expected content header for class 60, got one for class {class} instead"));
        }
        let size = u64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        if size > message_max_bytes {
            return Err(Exception::message_too_large(size, message_max_bytes).during(BASIC, PUBLISH));
        }
        let facts = content::check(payload.get(FIXED_BYTES..).unwrap_or_default())
            // RabbitMQ's channel breaks at this; the client sees an internal error without a word.
            .ok_or_else(|| Exception::internal(""))?;
        if let Some(content) = &mut self.content {
            content.start_body(payload, facts, size);
        }
        Ok(())
    }

    /// A frame while a body is due; `more` octets of the same frame will follow `payload`.
    pub(crate) fn publish_body(&mut self, kind: u8, payload: &[u8], more: usize) -> Result<(), Exception> {
        if kind != frame::BODY {
            let text = "expected content body, got non content body frame instead";
            return Err(Exception::new(ReplyCode::UnexpectedFrame, text).during(BASIC, PUBLISH));
        }
        let Some(content) = &mut self.content else { return Ok(()) };
        if (payload.len() + more) as u64 > content.left() {
            let text = "content body is larger than its header says";
            return Err(Exception::new(ReplyCode::FrameError, text).during(BASIC, PUBLISH));
        }
        content.append(payload, more);
        Ok(())
    }
}

/// Route and bits of a `basic.publish`.
pub(crate) fn parse_publish_method(payload: &[u8]) -> Result<(&[u8], u8), Exception> {
    let fields = payload.get(4..).unwrap_or_default();
    let malformed = || cannot_decode(fields).during(BASIC, PUBLISH);
    let [_, _, route @ .., bits] = fields else { return Err(malformed()) };
    broker_core::message::split_route(route).ok_or_else(malformed)?;
    Ok((route, *bits))
}
