//! Octets a client sends, and a connection that is past its handshake.
#![allow(dead_code, clippy::disallowed_methods, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use broker_amqp::{Connection, Input, Output, Settings, frame};

/// One method frame. `fields` are its octets after class and method.
pub fn method(channel: u16, class: u16, method: u16, fields: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, frame::METHOD, channel, |out| {
        out.extend_from_slice(&class.to_be_bytes());
        out.extend_from_slice(&method.to_be_bytes());
        out.extend_from_slice(fields);
    });
    out
}

/// A content header frame; `properties` are flags and values.
pub fn header(channel: u16, class: u16, body_len: u64, properties: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, frame::HEADER, channel, |out| {
        out.extend_from_slice(&class.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&body_len.to_be_bytes());
        out.extend_from_slice(properties);
    });
    out
}

/// A body frame.
pub fn body(channel: u16, octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::write(&mut out, frame::BODY, channel, |out| out.extend_from_slice(octets));
    out
}

/// The method frame of a publish.
pub fn publish_method(channel: u16, exchange: &[u8], key: &[u8], bits: u8) -> Vec<u8> {
    let mut fields = vec![0, 0];
    frame::write_short_string(&mut fields, exchange);
    frame::write_short_string(&mut fields, key);
    fields.push(bits);
    method(channel, 60, 40, &fields)
}

/// A whole publish, its body in frames of at most `frame_len` octets.
pub fn publish(
    channel: u16,
    exchange: &[u8],
    key: &[u8],
    bits: u8,
    properties: &[u8],
    octets: &[u8],
    frame_len: usize,
) -> Vec<u8> {
    let mut out = publish_method(channel, exchange, key, bits);
    out.extend(header(channel, 60, octets.len() as u64, properties));
    for piece in octets.chunks(frame_len) {
        out.extend(body(channel, piece));
    }
    out
}

/// Field table `capabilities` with these set, as client properties.
pub fn client_properties(capabilities: &[&str]) -> Vec<u8> {
    let mut inner = Vec::new();
    for name in capabilities {
        frame::write_short_string(&mut inner, name.as_bytes());
        inner.extend_from_slice(b"t\x01");
    }
    let mut table = Vec::new();
    frame::write_short_string(&mut table, b"capabilities");
    table.push(b'F');
    table.extend_from_slice(&(inner.len() as u32).to_be_bytes());
    table.extend_from_slice(&inner);
    table
}

/// `connection.start-ok`
pub fn start_ok(capabilities: &[&str], mechanism: &str, response: &[u8]) -> Vec<u8> {
    let table = client_properties(capabilities);
    let mut fields = (table.len() as u32).to_be_bytes().to_vec();
    fields.extend_from_slice(&table);
    frame::write_short_string(&mut fields, mechanism.as_bytes());
    fields.extend_from_slice(&(response.len() as u32).to_be_bytes());
    fields.extend_from_slice(response);
    frame::write_short_string(&mut fields, b"en_US");
    method(0, 10, 11, &fields)
}

/// `connection.tune-ok`
pub fn tune_ok(channel_max: u16, frame_max: u32, heartbeat: u16) -> Vec<u8> {
    let mut fields = channel_max.to_be_bytes().to_vec();
    fields.extend_from_slice(&frame_max.to_be_bytes());
    fields.extend_from_slice(&heartbeat.to_be_bytes());
    method(0, 10, 31, &fields)
}

/// The settings of tests: as RabbitMQ's defaults.
pub fn settings() -> Arc<Settings> {
    Arc::new(Settings {
        product: "Broker".into(),
        version: "1.0".into(),
        max_message_size: 1_000_000,
        ..Settings::default()
    })
}

/// A connection in which user `guest` opened vhost `/`, all octets so far written.
pub fn running(now: Instant, settings: Arc<Settings>, capabilities: &[&str], tune: &[u8]) -> Connection {
    let mut connection = Connection::new(now, settings, 1);
    let mut out: Vec<Output> = Vec::new();
    connection.receive(now, b"AMQP\0\0\x09\x01", &mut out);
    connection.receive(now, &start_ok(capabilities, "PLAIN", b"\0guest\0guest"), &mut out);
    connection.step(now, Input::LoginOk { user: "guest".into(), impersonator: false }, &mut out);
    connection.receive(now, tune, &mut out);
    connection.receive(now, &method(0, 10, 40, b"\x01/\0\0"), &mut out);
    connection.step(now, Input::OpenOk, &mut out);
    assert!(matches!(out[..], [Output::Login(_), Output::Open { .. }]), "{out:?}");
    drain(&mut connection);
    connection
}

/// Takes all octets that are to be written.
pub fn drain(connection: &mut Connection) -> Vec<u8> {
    let send = connection.send_buffer();
    let mut octets = Vec::new();
    while !send.is_empty() {
        let slices: Vec<u8> = send.as_io_slices(64).iter().flat_map(|slice| slice.to_vec()).collect();
        send.consume(slices.len());
        octets.extend(slices);
    }
    octets
}
