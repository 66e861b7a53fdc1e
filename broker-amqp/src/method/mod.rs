//! The methods that do not come by the million: read and written with amq-protocol, behind checks of our own.
//!
//! A payload is first walked along its layout, without recursion: lengths, UTF-8, field tables. Then amq-protocol reads it with the table taken
//! out, so that no table ever reaches a recursive parser, and the table travels on as the octets it came in.

mod layout;

use amq_protocol::frame::WriteContext;
use amq_protocol::protocol::{AMQPClass, gen_class, parse_class};
use amq_protocol::types::ShortString;

use crate::erlang;
use crate::exception::{Exception, ReplyCode};
use crate::frame;
use crate::send_buffer::SendBuffer;

const MALFORMED_UTF8: &str = "Malformed UTF-8 in shortstr";

/// A method a client sent.
#[derive(Debug)]
pub(crate) struct Method<'a> {
    pub(crate) class: u16,
    pub(crate) method: u16,
    /// The fields, but for field tables, which are empty here.
    pub(crate) fields: AMQPClass,
    /// The field table's content, if the method has one.
    pub(crate) table: &'a [u8],
    /// The octets of all fields.
    pub(crate) octets: &'a [u8],
}

/// Class and method of a payload, if it has both.
pub(crate) fn ids(payload: &[u8]) -> Option<(u16, u16)> {
    let &[c0, c1, m0, m1] = payload.first_chunk()?;
    Some((u16::from_be_bytes([c0, c1]), u16::from_be_bytes([m0, m1])))
}

/// 501 for fields that do not fit their method.
pub(crate) fn cannot_decode(fields: &[u8]) -> Exception {
    Exception::new(ReplyCode::FrameError, format!("cannot decode {}", erlang::plain(fields)))
}

/// Reads a method frame's payload, which is at least class and method.
pub(crate) fn parse(payload: &[u8]) -> Result<Method<'_>, Exception> {
    let (class, method) = ids(payload).ok_or_else(|| cannot_decode(payload))?;
    parse_fields(class, method, payload).map_err(|exception| match exception.text.as_str() {
        // RabbitMQ does not say in which method.
        MALFORMED_UTF8 => exception,
        _ => exception.during(class, method),
    })
}

fn parse_fields(class: u16, method: u16, payload: &[u8]) -> Result<Method<'_>, Exception> {
    let layout = layout::of(class, method).ok_or_else(Exception::unimplemented_method)?;
    let body = payload.get(4..).unwrap_or_default();
    let table = layout::check(layout, body).map_err(|fault| match fault {
        layout::Fault::Shape => cannot_decode(body),
        layout::Fault::Utf8 => Exception::new(ReplyCode::FrameError, MALFORMED_UTF8),
        layout::Fault::Table => Exception::new(ReplyCode::SyntaxError, "malformed field table"),
    })?;
    let table = table.unwrap_or(0..0);
    // amq-protocol gets an empty table in place of the client's.
    let mut without = Vec::new();
    let readable = if table.is_empty() {
        payload
    } else {
        without.extend_from_slice(payload.get(..table.start).unwrap_or_default());
        without.extend_from_slice(&[0; 4]);
        without.extend_from_slice(body.get(table.end..).unwrap_or_default());
        &without
    };
    let (_, fields) = parse_class(readable).map_err(|_| cannot_decode(body))?;
    Ok(Method { class, method, fields, table: body.get(table).unwrap_or_default(), octets: body })
}

/// Appends a method frame.
pub(crate) fn write(send: &mut SendBuffer, channel: u16, method: &AMQPClass) {
    send.append(|out| {
        frame::write(out, frame::METHOD, channel, |out| {
            let context = WriteContext::from(std::mem::take(out));
            // Writing to a vector fails only where a name is too long for its field, and all names were cut to fit.
            if let Ok(written) = gen_class(method)(context) {
                *out = written.into_inner().0;
            }
        });
    });
}

/// Appends a method frame that has no fields.
pub(crate) fn write_empty(send: &mut SendBuffer, channel: u16, class: u16, method: u16) {
    write_fields(send, channel, class, method, &[]);
}

/// Appends a method frame whose fields are already octets.
pub(crate) fn write_fields(send: &mut SendBuffer, channel: u16, class: u16, method: u16, fields: &[u8]) {
    send.append(|out| {
        frame::write(out, frame::METHOD, channel, |out| {
            out.extend_from_slice(&class.to_be_bytes());
            out.extend_from_slice(&method.to_be_bytes());
            out.extend_from_slice(fields);
        });
    });
}

/// A short string, cut to the 255 octets that fit.
pub(crate) fn short(text: &str) -> ShortString {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    ShortString::try_new(text.get(..end).unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use amq_protocol::frame::{AMQPFrame, gen_frame, parse_frame};
    use amq_protocol::protocol::{connection, queue};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_method_reads_back_with_its_table_raw() {
        let table = b"\x01aF\0\0\0\x04\x01bt\x01";
        let mut payload = b"\0\x32\0\x0a\0\0\x01q\x02\0\0\0\x0b".to_vec();
        payload.extend_from_slice(table);
        let method = parse(&payload).unwrap();
        assert_eq!((method.class, method.method, method.table), (50, 10, &table[..]));
        let AMQPClass::Queue(queue::AMQPMethod::Declare(declare)) = method.fields else { panic!() };
        assert!(declare.queue.as_str() == "q" && declare.durable && !declare.passive);
        // In connection.start-ok the table comes first.
        let method = parse(b"\0\x0a\0\x0b\0\0\0\x04\x01at\x01\x05PLAIN\0\0\0\x02\0x\x05en_US").unwrap();
        assert_eq!(method.table, b"\x01at\x01");
        let AMQPClass::Connection(connection::AMQPMethod::StartOk(ok)) = method.fields else { panic!() };
        assert_eq!((ok.mechanism.as_str(), ok.response.as_bytes()), ("PLAIN", &b"\0x"[..]));
    }

    #[test]
    fn faults_have_rabbitmqs_codes() {
        let text = |payload: &[u8]| parse(payload).unwrap_err().to_string();
        assert_eq!(text(b"\0\x32\0\x0a\0"), "501 FRAME_ERROR - cannot decode <<0>> (50, 10)");
        assert_eq!(text(b"\0\x32\0\x1e\0\0\x01\xff\0"), "501 FRAME_ERROR - Malformed UTF-8 in shortstr (0, 0)");
        assert_eq!(text(b"\0\x32\0\x0b"), "503 COMMAND_INVALID - unimplemented method (50, 11)");
        assert_eq!(text(b"\0\x63\0\x0b"), "503 COMMAND_INVALID - unimplemented method (99, 11)");
        assert_eq!(
            text(b"\0\x32\0\x0a\0\0\x01q\x02\0\0\0\x03\x01aZ"),
            "502 SYNTAX_ERROR - malformed field table (50, 10)"
        );
    }

    #[test]
    fn deep_tables_do_not_reach_a_recursive_parser() {
        let mut array = Vec::new();
        for _ in 0..20_000 {
            let mut outer = vec![b'A'];
            outer.extend_from_slice(&(array.len() as u32).to_be_bytes());
            outer.append(&mut array);
            array = outer;
        }
        let mut payload = b"\0\x32\0\x0a\0\0\x01q\x02".to_vec();
        payload.extend_from_slice(&(array.len() as u32 + 2).to_be_bytes());
        payload.extend_from_slice(b"\x01a");
        payload.extend_from_slice(&array);
        assert_eq!(parse(&payload).unwrap_err().code, ReplyCode::SyntaxError);
    }

    proptest! {
        #[test]
        fn any_payload_is_judged(class in prop::sample::select(vec![10_u16, 20, 30, 40, 50, 60, 85, 90, 7]), method in 0_u16..125,
                                 fields in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut payload = class.to_be_bytes().to_vec();
            payload.extend_from_slice(&method.to_be_bytes());
            payload.extend_from_slice(&fields);
            if let Ok(method) = parse(&payload) {
                // What passed is what amq-protocol reads too, table and all.
                let mut octets = Vec::new();
                frame::write(&mut octets, frame::METHOD, 1, |out| out.extend_from_slice(&payload));
                prop_assert!(matches!(parse_frame(octets.as_slice()), Ok((_, AMQPFrame::Method(1, _)))) || !method.table.is_empty());
            }
        }

        #[test]
        fn written_methods_read_back(name in "[a-z]{0,200}", messages in any::<u32>()) {
            let method = AMQPClass::Queue(queue::AMQPMethod::DeclareOk(queue::DeclareOk {
                queue: short(&name), message_count: messages, consumer_count: 1,
            }));
            let mut send = SendBuffer::default();
            write(&mut send, 3, &method);
            let octets: Vec<u8> = send.as_io_slices(64).iter().flat_map(|slice| slice.to_vec()).collect();
            let frame = AMQPFrame::Method(3, method);
            prop_assert_eq!(parse_frame(octets.as_slice()).unwrap().1, frame.clone());
            let theirs = gen_frame(&frame)(WriteContext::from(Vec::new())).unwrap().into_inner().0;
            prop_assert_eq!(octets, theirs);
        }
    }
}
