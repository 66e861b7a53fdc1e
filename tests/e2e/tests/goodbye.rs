//! A client that closed its connection shuts the socket itself: what it had on the way meanwhile must not be answered by a reset,
//! which could reach it before close-ok does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use e2e::wire::{self, Said, Wire};
use harness::{Broker, Brokerd, Options};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const HEARTBEAT: &[u8] = &[8, 0, 0, 0, 0, 0, 0, 0xce];

fn start() -> Brokerd {
    Brokerd::start(Options::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// Reads frames up to the method with these numbers.
fn read_to(stream: &mut TcpStream, class: u16, method: u16) {
    loop {
        let mut head = [0; 7];
        stream.read_exact(&mut head).unwrap();
        let size = u32::from_be_bytes(*head.last_chunk().unwrap()) as usize;
        let mut payload = vec![0; size + 1];
        stream.read_exact(&mut payload).unwrap();
        if payload.starts_with(&[class.to_be_bytes(), method.to_be_bytes()].concat()) {
            return;
        }
    }
}

/// A connection that was opened and closed again, its close-ok read, its socket as the broker leaves it.
fn closed_connection(broker: &Brokerd) -> TcpStream {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, broker.amqp_port())).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"AMQP\0\0\x09\x01").unwrap();
    read_to(&mut stream, 10, 10);
    stream.write_all(&wire::method(0, (10, 11), b"\0\0\0\0\x05PLAIN\0\0\0\x0c\0guest\0guest\x05en_US")).unwrap();
    read_to(&mut stream, 10, 30);
    stream.write_all(&wire::method(0, (10, 31), &[0, 16, 0, 0, 0x20, 0, 0, 0])).unwrap();
    stream.write_all(&wire::method(0, (10, 40), &[1, b'/', 0, 0])).unwrap();
    read_to(&mut stream, 10, 41);
    stream.write_all(&wire::method(0, (10, 50), &[0, 200, 0, 0, 0, 0, 0])).unwrap();
    read_to(&mut stream, 10, 51);
    stream
}

#[test]
fn what_follows_a_close_is_taken_and_dropped() {
    let broker = start();
    let mut stream = closed_connection(&broker);
    for _ in 0..20 {
        stream.write_all(HEARTBEAT).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let nothing = stream.read(&mut [0; 1]).unwrap_err();
    assert!(matches!(nothing.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{nothing}");
}

#[test]
fn a_client_that_does_not_shut_the_socket_is_not_waited_for_long() {
    let broker = start();
    let mut stream = closed_connection(&broker);
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn nobody_who_said_goodbye_holds_up_a_stop() {
    let mut broker = start();
    let stream = closed_connection(&broker);
    let began = Instant::now();
    broker.terminate().unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "the stop took {:?}", began.elapsed());
    drop(stream);
}

/// The message of a basic.get may have to be read from the disk, and whoever asked is gone by then.
#[test]
fn a_message_for_which_nobody_waits_any_more_stays_in_its_queue() {
    let mut broker = start();
    // Long enough that it takes a moment.
    let body = vec![7; 100_000];
    let mut wire = Wire::open(broker.amqp_port()).unwrap();
    wire.declare("q", true).unwrap();
    wire.confirm_select(1).unwrap();
    for _ in 0..3 {
        wire.send(&wire::publish(1, "q", true, &body)).unwrap();
    }
    wire.find(|said| matches!(said, Said::Ack(3, _))).unwrap();
    drop(wire);
    broker.restart().unwrap();
    for _ in 0..20 {
        let mut hasty = Wire::open(broker.amqp_port()).unwrap();
        hasty.send(&wire::method(1, (60, 70), &[&[0, 0][..], &wire::short("q"), &[0]].concat())).unwrap();
        hasty.hang_up();
    }
    let mut wire = Wire::open(broker.amqp_port()).unwrap();
    thread::sleep(Duration::from_millis(500));
    for _ in 0..3 {
        assert!(wire.get("q").unwrap().is_some_and(|got| got == body));
    }
    assert_eq!(wire.get("q").unwrap(), None);
}
