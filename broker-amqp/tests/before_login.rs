//! What a client that has not logged in can make a connection hold, and for how long.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::panic)]

mod client;

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_amqp::{CloseReason, Connection, Input, Output, STRANGER_MAX_BYTES, Settings, frame};
use client::{drain, settings, start_ok};

const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\0\0\x09\x01";
/// Half-open connections at the same time.
const STRANGERS: usize = 500;
/// What each of them sends.
const SENT_BYTES: usize = 60 * 1024;

/// `start-ok` in a frame of `frame_len` octets, by a password of the length that this takes.
fn start_ok_of(frame_len: usize) -> Vec<u8> {
    let rest = start_ok(&[], "PLAIN", b"\0guest\0").len();
    let mut response = b"\0guest\0".to_vec();
    response.resize(response.len() + frame_len - rest, b'x');
    let octets = start_ok(&[], "PLAIN", &response);
    assert_eq!(octets.len(), frame_len);
    octets
}

/// Ways to send much without ever logging in.
fn hostile_starts() -> Vec<(&'static str, Vec<u8>)> {
    let after = |start: &[&[u8]], filler: u8| {
        let mut octets = start.concat();
        octets.resize(SENT_BYTES, filler);
        octets
    };
    let claims_4_gib = [frame::METHOD, 0, 0, 0xff, 0xff, 0xff, 0xff];
    let claims_4_kib = [frame::METHOD, 0, 0, 0, 0, 0x10, 0];
    let heartbeats = [frame::HEARTBEAT, 0, 0, 0, 0, 0, 0, frame::END].repeat(SENT_BYTES / 8);
    vec![
        ("no protocol header", after(&[], 0)),
        ("a frame of 4 GiB", after(&[PROTOCOL_HEADER, &claims_4_gib], 0)),
        ("a frame that never ends", after(&[PROTOCOL_HEADER, &claims_4_kib], 0)),
        ("a login, then more before the answer", after(&[PROTOCOL_HEADER, &start_ok_of(4096)], 7)),
        ("heartbeats", after(&[PROTOCOL_HEADER, &heartbeats], 0)),
    ]
}

#[test]
fn half_open_connections_hold_little_whatever_they_send() {
    let now = Instant::now();
    for piece in [1, 100, 1_459, SENT_BYTES] {
        for (what, octets) in hostile_starts() {
            let mut total = 0;
            // Byte by byte takes long in a debug build, and each connection does the same.
            let connections = if piece == 1 { 1 } else { STRANGERS };
            let open: Vec<Connection> = (0..connections)
                .map(|seed| {
                    let mut connection = Connection::new(now, settings(), seed as u128);
                    let mut out = Vec::new();
                    for part in octets.chunks(piece) {
                        connection.receive(now, part, &mut out);
                        let memory = connection.memory();
                        assert!(memory < STRANGER_MAX_BYTES, "{what}, in pieces of {piece}: {memory} bytes");
                    }
                    assert!(connection.user().is_none());
                    connection
                })
                .collect();
            for connection in &open {
                total += connection.memory();
            }
            assert!(total < connections * STRANGER_MAX_BYTES, "{what}: {total} bytes");
        }
    }
}

#[test]
fn a_refused_client_is_not_listened_to() {
    let now = Instant::now();
    for capabilities in [&[][..], &["authentication_failure_close"]] {
        let mut connection = Connection::new(now, settings(), 1);
        let mut out = Vec::new();
        connection.receive(now, PROTOCOL_HEADER, &mut out);
        connection.receive(now, &start_ok(capabilities, "PLAIN", b"\0guest\0wrong"), &mut out);
        connection.receive(now, &[0; 10_000], &mut out);
        connection.step(now, Input::LoginRefused, &mut out);
        while connection.wants_resume() {
            connection.resume(now, &mut out);
        }
        drain(&mut connection);
        for _ in 0..1_000 {
            connection.receive(now, &[0; 1_000], &mut out);
        }
        assert!(connection.memory() < STRANGER_MAX_BYTES, "{} bytes", connection.memory());
        assert!(!connection.paused());
    }
}

/// As in RabbitMQ, a payload may have as many octets as the limit says of the frame: eight more than it should.
#[test]
fn the_first_frames_are_as_large_as_the_settings_say() {
    let now = Instant::now();
    for (initial_frame_max, frame_len, taken) in
        [(4_096, 4_104, true), (4_096, 4_105, false), (8_192, 8_200, true), (8_192, 8_201, false), (0, 4_104, true)]
    {
        let settings = Arc::new(Settings { initial_frame_max, ..Settings::default() });
        let mut connection = Connection::new(now, settings, 1);
        let mut out = Vec::new();
        connection.receive(now, PROTOCOL_HEADER, &mut out);
        connection.receive(now, &start_ok_of(frame_len), &mut out);
        assert_eq!(matches!(out[..], [Output::Login(_)]), taken, "{initial_frame_max}: {frame_len}");
    }
}

#[test]
fn a_handshake_without_a_time_limit_is_waited_for() {
    let start = Instant::now();
    let days = start + Duration::from_secs(7 * 86_400);
    for (handshake_timeout, closed) in [(None, false), (Some(Duration::from_secs(600)), true)] {
        let settings = Arc::new(Settings { handshake_timeout, ..Settings::default() });
        let mut connection = Connection::new(start, settings, 1);
        let mut out = Vec::new();
        connection.receive(start, PROTOCOL_HEADER, &mut out);
        assert_eq!(connection.next_timeout(), handshake_timeout.map(|time| start + time));
        connection.timeout(days, &mut out);
        let timed_out = matches!(out.last(), Some(Output::Close { reason: CloseReason::HandshakeTimeout }));
        assert_eq!(timed_out, closed, "{out:?}");
    }
}
