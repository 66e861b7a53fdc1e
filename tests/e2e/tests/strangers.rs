//! Clients that have not logged in: too many of them, and those who guess passwords.
//!
//! All of 127.0.0.0/8 is this machine, so one machine can be many addresses.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use e2e::wire;
use harness::{Broker, Brokerd, Options};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const PROTOCOL_HEADER: &[u8] = b"AMQP\0\0\x09\x01";
const START: [u16; 2] = [10, 10];
const TUNE: [u16; 2] = [10, 30];
const CLOSE: [u16; 2] = [10, 50];
const ALGORITHM: &str = "rabbit_password_hashing_sha256";

fn start(conf: &str) -> Brokerd {
    Brokerd::start(Options::default().conf(conf)).unwrap_or_else(|error| panic!("{error}"))
}

fn address(third: u8, fourth: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, third, fourth)
}

/// Connects from that address, and says nothing.
fn silent(broker: &Brokerd, from: Ipv4Addr) -> TcpStream {
    let client = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&client, &SocketAddrV4::new(from, 0)).unwrap();
    connect(&client, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, broker.amqp_port())).unwrap();
    let stream = TcpStream::from(client);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The next method: its class and number, and its fields.
fn method(stream: &mut TcpStream) -> io::Result<([u16; 2], Vec<u8>)> {
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let size = u32::from_be_bytes(*head.last_chunk().unwrap()) as usize;
    let mut payload = vec![0; size + 1];
    stream.read_exact(&mut payload)?;
    let number = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
    Ok(([number(0), number(2)], payload[4..size].to_vec()))
}

/// What the broker answers to a login: `tune` or `close`.
fn login(stream: &mut TcpStream, user: &str, password: &str) -> io::Result<([u16; 2], Vec<u8>)> {
    stream.write_all(PROTOCOL_HEADER)?;
    assert_eq!(method(stream)?.0, START);
    let properties = b"\x0ccapabilitiesF\0\0\0\x1f\x1cauthentication_failure_closet\x01";
    let response = format!("\0{user}\0{password}");
    let fields =
        [wire::long(properties), wire::short("PLAIN"), wire::long(response.as_bytes()), wire::short("en_US")].concat();
    stream.write_all(&wire::method(0, (10, 11), &fields))?;
    method(stream)
}

/// Whether the right password gets a client from that address in, and after what time.
fn gets_in(broker: &Brokerd, from: Ipv4Addr) -> io::Result<Duration> {
    let began = Instant::now();
    let (answer, _) = login(&mut silent(broker, from), "guest", "guest")?;
    assert_eq!(answer, TUNE);
    Ok(began.elapsed())
}

/// Whether the broker has shut the socket.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    match stream.read(&mut [0]) {
        Ok(octets) => octets == 0,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn silent_sockets_of_one_address_do_not_keep_others_out() {
    let broker = start(
        "broker.unauthenticated_max = 64\nbroker.unauthenticated_max_per_address = 16\nhandshake_timeout = 3000\n",
    );
    let mut sockets: Vec<TcpStream> = (0..200).map(|_| silent(&broker, address(0, 2))).collect();
    gets_in(&broker, address(0, 3)).expect("another address is not concerned");
    // 64 of the 200 are there or wait, but for the one that gave way; the others are closed at once, well before the handshake's time is over.
    let closed = sockets.iter_mut().filter_map(|socket| is_closed(socket).then_some(())).count();
    assert!(closed >= 200 - 64, "{closed} of 200 were closed");
    let log = broker.log_tail();
    assert!(log.contains("a connection was closed: its address has too many that have not logged in"), "{log}");

    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = gets_in(&broker, address(0, 2)) {
        assert!(Instant::now() < deadline, "{error} although the silent sockets' time is over\n{}", broker.log_tail());
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_full_node_lets_the_next_in_when_the_silent_are_gone() {
    let broker =
        start("broker.unauthenticated_max = 8\nbroker.unauthenticated_max_per_address = 2\nhandshake_timeout = 2000\n");
    let _sockets: Vec<TcpStream> = (0..8).map(|number| silent(&broker, address(1, 1 + number / 2))).collect();
    gets_in(&broker, address(0, 3)).expect("it waits in the kernel, and is served then");
    let log = broker.log_tail();
    assert!(log.contains("so many connections have not logged in that new ones wait in the kernel"), "{log}");
}

#[test]
fn a_burst_of_one_address_waits_for_its_turn() {
    const CLIENTS: usize = 300;
    let broker = start("broker.unauthenticated_max_per_address = 8\n");
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| gets_in(&broker, address(0, 2)))).collect();
        for client in clients {
            client.join().unwrap().unwrap_or_else(|error| panic!("{error}\n{}", broker.log_tail()));
        }
    });
}

#[test]
fn who_guesses_passwords_waits_longer_and_longer_and_nobody_else_does() {
    let broker = start("");
    // A client of the guesser's own address that was let in before.
    gets_in(&broker, address(0, 2)).unwrap();
    let mut waits = Vec::new();
    for _ in 0..7 {
        let began = Instant::now();
        let (answer, fields) = login(&mut silent(&broker, address(0, 2)), "ann", "guess").unwrap();
        waits.push(began.elapsed());
        assert_eq!(answer, CLOSE);
        let text = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. \
                    For details see the broker logfile.";
        assert_eq!(&fields[..2], &403_u16.to_be_bytes());
        assert_eq!(&fields[3..3 + usize::from(fields[2])], text.as_bytes());
    }
    let (sixth, seventh) = (waits[5], waits[6]);
    assert!(sixth >= Duration::from_millis(500) && seventh >= Duration::from_secs(1), "{waits:?}");

    // Two guessers wait for seconds now, one of them for a user that exists; the others do not.
    thread::scope(|scope| {
        let guess = |from, user| login(&mut silent(&broker, from), user, "guess").unwrap().0;
        let guessers =
            [scope.spawn(move || guess(address(0, 2), "bob")), scope.spawn(move || guess(address(0, 4), "ann"))];
        for from in [address(0, 2), address(0, 3)] {
            let waited = gets_in(&broker, from).unwrap();
            assert!(waited < Duration::from_secs(2), "{waited:?} from {from}");
        }
        assert!(guessers.iter().all(|guesser| !guesser.is_finished()), "the guessers still wait");
        for guesser in guessers {
            assert_eq!(guesser.join().unwrap(), CLOSE);
        }
    });
}

#[test]
fn a_login_may_be_as_large_as_the_first_frames() {
    for (conf, heard) in [("", false), ("initial_frame_max = 8KB\n", true)] {
        let broker = start(conf);
        let answer = login(&mut silent(&broker, address(0, 2)), "guest", &"x".repeat(6_000));
        // As in RabbitMQ, what breaks the handshake is not answered.
        assert_eq!(answer.is_ok_and(|(answer, _)| answer == CLOSE), heard, "{conf}");
    }
}

/// Resident memory of the broker, in MiB.
fn mebibytes(broker: &Brokerd) -> u64 {
    broker.rss_now().unwrap() >> 20
}

#[test]
fn a_thousand_who_claim_gigabytes_get_none() {
    const CLIENTS: u16 = 1_000;
    let broker = start("broker.unauthenticated_max = 2000\nhandshake_timeout = 120000\n");
    gets_in(&broker, address(0, 3)).unwrap();
    let before = mebibytes(&broker);
    let mut sockets: Vec<TcpStream> = (0..CLIENTS)
        .map(|number| {
            let mut stream = silent(&broker, address(2, 1 + (number / 60) as u8));
            stream.write_all(PROTOCOL_HEADER).unwrap();
            assert_eq!(method(&mut stream).unwrap().0, START);
            // A start-ok of almost 4 GiB; or one as large as it may be, all of which but the last octet comes.
            let claimed: u32 = if number % 2 == 0 { u32::MAX - 16 } else { 4_096 - 8 };
            let sent = usize::try_from(claimed).unwrap().min(4_087);
            let octets = [&[1, 0, 0][..], &claimed.to_be_bytes(), &[0, 10, 0, 11], &vec![0; sent - 4]].concat();
            // Who claims too much may find the socket shut before all is written.
            let _ = stream.write_all(&octets);
            stream
        })
        .collect();
    let waited = gets_in(&broker, address(0, 3)).expect("who means it gets in");
    assert!(waited < Duration::from_secs(1), "{waited:?}");
    let grown = mebibytes(&broker).saturating_sub(before);
    assert!(grown <= 64, "{grown} MiB more");
    let deadline = Instant::now() + PATIENCE;
    let mut closed = 0;
    while closed < usize::from(CLIENTS / 2) && Instant::now() < deadline {
        closed = sockets.iter_mut().filter_map(|socket| is_closed(socket).then_some(())).count();
    }
    assert_eq!(closed, usize::from(CLIENTS / 2), "those who claimed 4 GiB, and only they");
}

/// The time of a refusal tells nobody which users there are, nor how their passwords are kept. Each guess comes from another address, and few are
/// for the same user: none has to wait.
#[test]
fn every_refused_login_costs_the_same_work() {
    let broker = start("");
    // Passwords hashed by RabbitMQ: checking one takes microseconds.
    let old: Vec<String> = (0..5).map(|number| format!("old{number}")).collect();
    let hash = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";
    let user = |name| {
        format!(r#"{{"name": "{name}", "password_hash": "{hash}", "hashing_algorithm": "{ALGORITHM}", "tags": ""}}"#)
    };
    let users: Vec<String> = old.iter().map(user).collect();
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("users.json");
    std::fs::write(&file, format!(r#"{{"users": [{}]}}"#, users.join(","))).unwrap();
    let imported = broker.control().run(&["import_definitions", file.to_str().unwrap()]).unwrap();
    assert!(imported.succeeded, "{imported:?}");

    // The broker's time on the processor, which does not depend on what else the machine does. As many guesses as are free for one user.
    let work = |third: u8, user: &dyn Fn(usize) -> String| {
        let began = broker.cpu_time().unwrap();
        for number in 0..old.len() {
            let mut stream = silent(&broker, address(third, 1 + number as u8));
            assert_eq!(login(&mut stream, &user(number), "guess").unwrap().0, CLOSE);
        }
        broker.cpu_time().unwrap() - began
    };
    let times = [
        work(3, &|_| "guest".to_owned()),
        work(4, &|number| old[number].clone()),
        work(5, &|number| format!("nobody{number}")),
    ];
    let (least, most) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
    assert!(least >= most / 2, "a new password, an old one, an unknown name: {times:?}");
}

/// Hashing is expensive on purpose; those who ask for it by the hundred must not keep out who is known.
#[test]
fn a_storm_of_guesses_keeps_nobody_out_who_has_been_in() {
    let broker = start("");
    gets_in(&broker, address(0, 3)).unwrap();
    let stop = AtomicBool::new(false);
    let guesses = AtomicUsize::new(0);
    let mut waits = thread::scope(|scope| {
        for guesser in 0..16_u8 {
            let (broker, stop, guesses) = (&broker, &stop, &guesses);
            scope.spawn(move || {
                for number in 0..u8::MAX {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let mut stream = silent(broker, address(10 + guesser, 1 + number % 250));
                    // Said and not waited for: the next guess comes at once.
                    let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
                    let _ = login(&mut stream, &format!("user{number}"), "guess");
                    guesses.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let waits: Vec<Duration> = (0..50)
            .map(|_| {
                thread::sleep(Duration::from_millis(50));
                gets_in(&broker, address(0, 3)).expect("a known password gets in")
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        waits
    });
    waits.sort_unstable();
    let guesses = guesses.into_inner();
    assert!(guesses > 100, "only {guesses} guesses");
    assert!(waits[48] < Duration::from_secs(2), "{guesses} guesses; the slowest logins took {:?}", &waits[40..]);
}
