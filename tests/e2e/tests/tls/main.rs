//! AMQP over TLS: versions, certificates on both sides, reload, and those who mean no good.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod session;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use harness::{Broker, Brokerd, Options, free_port};
use rcgen::DnType;
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustix::process::{Pid, Signal, kill_process};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, StreamOwned, SupportedProtocolVersion};

use e2e::certificates::{Authority, Pair};
use session::Session;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
const REFUSED: &str = "ACCESS_REFUSED - Login was refused using authentication mechanism EXTERNAL. \
                       For details see the broker logfile.";

/// A broker with a TLS port.
struct Subject {
    broker: Brokerd,
    port: u16,
}

type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl Subject {
    fn start(authority: &Authority, server: &Pair, more: &str) -> Self {
        let port = free_port().unwrap();
        let Pair { certificate, key } = server;
        let conf = format!(
            "listeners.ssl.default = {port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\nlog.console.level = debug\n{more}",
            authority.file().display(),
            certificate.display(),
            key.display()
        );
        let broker = Brokerd::start(Options::default().conf(&conf)).unwrap_or_else(|error| panic!("{error}"));
        Self { broker, port }
    }

    /// A socket to the TLS port.
    fn socket(&self) -> TcpStream {
        self.socket_from(Ipv4Addr::LOCALHOST)
    }

    fn socket_from(&self, from: Ipv4Addr) -> TcpStream {
        let client = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&client, &SocketAddrV4::new(from, 0)).unwrap();
        connect(&client, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port)).unwrap();
        let stream = TcpStream::from(client);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn connect(&self, config: &Arc<ClientConfig>) -> TlsStream {
        over(config, self.socket())
    }

    /// Waits for a line of the log.
    fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.broker.log_tail().contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in the log:\n{}", self.broker.log_tail());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.broker.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

fn over<S: Read + Write>(config: &Arc<ClientConfig>, stream: S) -> StreamOwned<ClientConnection, S> {
    let session = ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(session, stream)
}

fn plain_subject(more: &str) -> (Authority, Subject) {
    let authority = Authority::new("authority");
    let server = authority.server("server");
    let subject = Subject::start(&authority, &server, more);
    (authority, subject)
}

/// Octets that look like nothing in particular, the same for the same number.
fn octets(number: u64, count: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number);
    (0..count).map(|_| random.u8(..)).collect()
}

#[test]
fn both_versions_carry_small_and_large_messages_both_ways() {
    let (authority, subject) = plain_subject("");
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let config = authority.client_config(&[version], None);
        let mut session = Session::guest(subject.connect(&config)).unwrap();
        assert_eq!(session.stream.conn.protocol_version(), Some(expected));
        session.declare("q").unwrap();
        let sizes = [0, 1, 16_384, 100_000, 12_000_000, 3];
        for (number, size) in sizes.into_iter().enumerate() {
            session.publish("q", &octets(number as u64, size)).unwrap();
        }
        session.consume("q").unwrap();
        for (number, size) in sizes.into_iter().enumerate() {
            assert!(
                session.delivery().unwrap() == octets(number as u64, size),
                "{version:?}, message of {size} octets"
            );
        }
        session.close().unwrap();
        // The broker says goodbye in TLS too: the end is not a torn one.
        assert_eq!(session.stream.read(&mut [0]).unwrap(), 0);
    }
}

/// Reads and writes in pieces of random sizes, as a network might.
struct Choppy {
    stream: TcpStream,
    random: fastrand::Rng,
    largest: usize,
}

impl Read for Choppy {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = self.random.usize(1..=self.largest).min(buffer.len());
        self.stream.read(&mut buffer[..most])
    }
}

impl Write for Choppy {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let most = self.random.usize(1..=self.largest).min(buffer.len());
        self.stream.write(&buffer[..most])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[test]
fn thousands_of_small_messages_in_pieces_of_random_sizes_arrive_unchanged() {
    const MESSAGES: u64 = 5_000;
    let (authority, subject) = plain_subject("");
    for (version, largest) in [(&TLS12, 700), (&TLS13, 40), (&TLS13, 30_000)] {
        let config = authority.client_config(&[version], None);
        let open = |seed| {
            let stream = subject.socket();
            stream.set_nodelay(true).unwrap();
            Session::guest(over(&config, Choppy { stream, random: fastrand::Rng::with_seed(seed), largest })).unwrap()
        };
        let (mut publisher, mut consumer) = (open(1), open(2));
        let size = |number: u64| (number.wrapping_mul(7_919) % 900) as usize;
        consumer.declare("q").unwrap();
        consumer.consume("q").unwrap();
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..MESSAGES {
                    publisher.publish("q", &octets(number, size(number))).unwrap();
                }
                publisher.close().unwrap();
            });
            for number in 0..MESSAGES {
                assert!(consumer.delivery().unwrap() == octets(number, size(number)), "message {number}");
            }
        });
        consumer.close().unwrap();
    }
}

/// A consumer that does not read holds up nobody, and gets everything once it does.
#[test]
fn a_slow_reader_over_tls_gets_all_of_it() {
    let (authority, subject) = plain_subject("");
    let config = authority.client_config(BOTH, None);
    let mut consumer = Session::guest(subject.connect(&config)).unwrap();
    consumer.declare("q").unwrap();
    consumer.consume("q").unwrap();
    let mut publisher = Session::guest(subject.connect(&config)).unwrap();
    for number in 0..400 {
        publisher.publish("q", &octets(number, 100_000)).unwrap();
    }
    publisher.close().unwrap();
    for number in 0..400 {
        assert!(consumer.delivery().unwrap() == octets(number, 100_000), "message {number}");
    }
}

#[test]
fn pika_speaks_to_it_over_both_versions_and_with_a_certificate() {
    let authority = Authority::new("authority");
    let more = "ssl_options.verify = verify_peer\ndefault_user = ann\nssl_cert_login_from = common_name\n\
                auth_mechanisms.1 = EXTERNAL\n";
    let server = authority.server("server");
    let (plain, mutual) = (Subject::start(&authority, &server, ""), Subject::start(&authority, &server, more));
    let ann = authority.client("ann", &[(DnType::CommonName, "ann")]);
    let program = Path::new(env!("CARGO_BIN_EXE_e2e-lapin"));
    let python = program.ancestors().nth(2).unwrap().join("e2e/python/bin/python");
    let run = |subject: &Subject, version: &str, pair: &[&Path]| {
        let mut command = Command::new(&python);
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("python"));
        command.arg("tls.py").arg(subject.port.to_string()).arg(authority.file()).arg(version).args(pair);
        let output =
            command.output().unwrap_or_else(|error| panic!("{}: {error}; run tests/e2e/install", python.display()));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.stdout == b"ok\n", "{version}: {said}\n{}", subject.broker.log_tail());
    };
    for version in ["TLSv1_2", "TLSv1_3"] {
        run(&plain, version, &[]);
        run(&mutual, version, &[&ann.certificate, &ann.key]);
    }
}

/// What a client with this certificate meets: a session, or a failed handshake.
fn handshake(subject: &Subject, config: &Arc<ClientConfig>) -> io::Result<()> {
    let mut stream = subject.connect(config);
    stream.write_all(b"AMQP\0\0\x09\x01")?;
    stream.flush()?;
    stream.read_exact(&mut [0; 8])
}

#[test]
fn only_clients_with_a_sound_certificate_get_in_where_it_is_asked_for() {
    let authority = Authority::new("authority");
    let stranger = Authority::new("stranger");
    let server = authority.server("server");
    let required = "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n";
    let subject = Subject::start(&authority, &server, required);
    let optional = Subject::start(&authority, &server, "ssl_options.verify = verify_peer\n");
    let name = [(DnType::CommonName, "ann")];
    let (ann, wrong, expired) =
        (authority.client("ann", &name), stranger.client("wrong", &name), authority.expired_client("expired"));
    for version in [&TLS12, &TLS13] {
        let meets = |subject, pair| handshake(subject, &authority.client_config(&[version], pair));
        meets(&subject, Some(&ann)).unwrap();
        meets(&optional, Some(&ann)).unwrap();
        meets(&optional, None).unwrap();
        for (pair, alert) in
            [(None, "CertificateRequired"), (Some(&wrong), "UnknownCA"), (Some(&expired), "CertificateExpired")]
        {
            let error = meets(&subject, pair).unwrap_err().to_string();
            // TLS 1.2 has no alert of its own for a missing certificate.
            assert!(error.contains(alert) || (pair.is_none() && error.contains("alert")), "{version:?}: {error}");
            if pair.is_some() {
                meets(&optional, pair).unwrap_err();
            }
        }
    }
    subject.wait_for_log("the TLS handshake failed: invalid peer certificate: certificate expired");
}

#[test]
fn external_logs_in_whom_the_certificate_names() {
    let authority = Authority::new("authority");
    let server = authority.server("server");
    let subject_of = [
        (DnType::CountryName, "DE"),
        (DnType::OrganizationName, "Example, Inc."),
        (DnType::OrganizationalUnitName, "dev"),
        (DnType::CommonName, "ann"),
    ];
    let ann = authority.client("ann", &subject_of);
    let eve = authority.client("eve", &[(DnType::CommonName, "eve")]);
    let common = "auth_mechanisms.1 = EXTERNAL\nauth_mechanisms.2 = PLAIN\nssl_options.verify = verify_peer\n";
    for more in [
        "default_user = 'CN=ann,OU=dev,O=Example\\, Inc.,C=DE'\n",
        "default_user = ann\nssl_cert_login_from = common_name\n",
    ] {
        let subject = Subject::start(&authority, &server, &format!("{common}{more}"));
        let login = |pair: Option<&Pair>, mechanism, response: &str| {
            let stream = subject.connect(&authority.client_config(BOTH, pair));
            Session::open(stream, mechanism, response).unwrap()
        };
        // What the client says of itself does not count.
        let mut session = login(Some(&ann), "EXTERNAL", "eve").unwrap_or_else(|refused| panic!("{}", refused.text));
        session.declare("q").unwrap();
        session.close().unwrap();
        for (pair, reason) in [(Some(&eve), "no such user"), (None, "the client presented no certificate")] {
            let refused = login(pair, "EXTERNAL", "ann").err().unwrap();
            assert_eq!((refused.text.as_str(), refused.mechanisms.as_str()), (REFUSED, "EXTERNAL PLAIN"));
            subject.wait_for_log(reason);
        }
        // Without TLS it is not offered.
        let plain = TcpStream::connect((Ipv4Addr::LOCALHOST, subject.broker.amqp_port())).unwrap();
        let refused = Session::open(plain, "PLAIN", "\0eve\0x").unwrap().err().unwrap();
        assert_eq!(refused.mechanisms, "PLAIN");
    }
}

#[test]
fn older_versions_are_refused_with_an_alert() {
    let (_authority, subject) = plain_subject("");
    for minor in [1, 2] {
        let mut hello = vec![3, minor];
        hello.extend([7; 32]);
        hello.extend([0, 0, 4, 0xc0, 0x14, 0, 0x2f, 1, 0]);
        let length = u8::try_from(hello.len()).unwrap();
        let record = [&[22, 3, 1, 0, length + 4, 1, 0, 0, length][..], &hello].concat();
        let mut stream = subject.socket();
        stream.write_all(&record).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        // An alert, fatal: protocol_version, or handshake_failure for want of what newer versions have.
        assert!(
            answer[0] == 21 && [[2, 70], [2, 40]].contains(&[answer[5], answer[6]]),
            "TLS 1.{}: {answer:?}",
            minor - 1
        );
    }
    subject.wait_for_log("the TLS handshake failed: peer is incompatible");
}

#[test]
fn who_speaks_the_wrong_protocol_is_shown_out() {
    let (authority, subject) = plain_subject("");
    // AMQP to the port for TLS: an alert at most.
    let mut stream = subject.socket();
    stream.write_all(b"AMQP\0\0\x09\x01").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    subject.wait_for_log("the TLS handshake failed: received corrupt message");

    // TLS to the port without: the protocol header that would have been right.
    let plain = TcpStream::connect((Ipv4Addr::LOCALHOST, subject.broker.amqp_port())).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    let error = over(&authority.client_config(BOTH, None), plain).write_all(b"x").unwrap_err();
    assert!(error.kind() == io::ErrorKind::InvalidData || error.kind() == io::ErrorKind::UnexpectedEof, "{error}");

    // Nonsense in a session that was fine: the session ends, the node does not.
    let mut session = Session::guest(subject.connect(&authority.client_config(BOTH, None))).unwrap();
    session.stream.sock.write_all(&[23, 3, 3, 0, 40].repeat(20)).unwrap();
    let _ = session.stream.sock.read_to_end(&mut Vec::new());
    subject.wait_for_log("the TLS session failed");
    Session::guest(subject.connect(&authority.client_config(BOTH, None))).unwrap();
}

/// The kernel tells of both at once, and only once.
#[test]
fn last_words_and_a_hang_up_that_come_together_are_both_heard() {
    let (authority, subject) = plain_subject("");
    let mut witness = Session::guest(subject.connect(&authority.client_config(BOTH, None))).unwrap();
    witness.declare("q").unwrap();
    witness.consume("q").unwrap();
    let plain = TcpStream::connect((Ipv4Addr::LOCALHOST, subject.broker.amqp_port())).unwrap();
    let mut plain = Session::guest(plain).unwrap();
    let mut tls = Session::guest(subject.connect(&authority.client_config(BOTH, None))).unwrap();
    subject.signal(Signal::STOP);
    plain.publish("q", b"plain").unwrap();
    tls.publish("q", b"tls").unwrap();
    tls.stream.flush().unwrap();
    drop((plain, tls));
    subject.signal(Signal::CONT);
    let mut heard = [witness.delivery().unwrap(), witness.delivery().unwrap()];
    heard.sort();
    assert_eq!(heard, [b"plain".to_vec(), b"tls".to_vec()]);
    let deadline = Instant::now() + PATIENCE;
    while subject.broker.log_tail().matches("the client closed the socket").count() < 2 {
        assert!(Instant::now() < deadline, "{}", subject.broker.log_tail());
        thread::sleep(Duration::from_millis(20));
    }
}

/// The name in the certificate that the node shows.
fn shown(subject: &Subject, authority: &Authority) -> Vec<u8> {
    let mut stream = subject.connect(&authority.client_config(BOTH, None));
    stream.write_all(b"AMQP\0\0\x09\x01").unwrap();
    stream.read_exact(&mut [0; 8]).unwrap();
    stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn certificates_are_replaced_while_it_runs() {
    let authority = Authority::new("authority");
    let server = authority.server("server");
    let subject = Subject::start(&authority, &server, "");
    let first = shown(&subject, &authority);
    let mut open = Session::guest(subject.connect(&authority.client_config(BOTH, None))).unwrap();
    open.declare("q").unwrap();
    open.consume("q").unwrap();

    // A certificate without its key is not taken over.
    let next = authority.server("next");
    fs::copy(&next.certificate, &server.certificate).unwrap();
    subject.signal(Signal::HUP);
    subject.wait_for_log("TLS certificates not taken over, the ones in use stay: ssl_options.keyfile");
    assert_eq!(shown(&subject, &authority), first);

    fs::copy(&next.key, &server.key).unwrap();
    subject.signal(Signal::HUP);
    subject.wait_for_log("read the TLS certificates again; new connections use them");
    assert_ne!(shown(&subject, &authority), first);

    open.publish("q", b"still there").unwrap();
    assert_eq!(open.delivery().unwrap(), b"still there");
}

#[test]
fn a_start_with_wrong_files_says_which_and_why() {
    let authority = Authority::new("authority");
    let (server, other) = (authority.server("server"), authority.server("other"));
    let path = authority.directory().join("brokerd.conf");
    let binary = Path::new(env!("CARGO_BIN_EXE_e2e-lapin")).with_file_name("brokerd");
    for (certificate, key, problem) in [
        (Path::new("/none.crt"), server.key.as_path(), "ssl_options.certfile = /none.crt: there is no such file"),
        (&server.certificate, &other.key, "the key does not belong to the certificate of"),
        (&server.certificate, &server.certificate, "there is no private key in it"),
    ] {
        let port = free_port().unwrap();
        let text = format!(
            "listeners.tcp = none\nlisteners.ssl.a = {port}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n",
            certificate.display(),
            key.display()
        );
        fs::write(&path, text).unwrap();
        let mut command = Command::new(&binary);
        let output =
            command.arg("--config").arg(&path).arg("--data-dir").arg(authority.directory().join("data")).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(78) && said.contains(problem), "{:?}: {said}", output.status);
    }
}

#[test]
fn handshakes_that_take_for_ever_are_ended_and_keep_nobody_out() {
    let (authority, subject) = plain_subject(
        "ssl_handshake_timeout = 1500\nbroker.unauthenticated_max = 64\nbroker.unauthenticated_max_per_address = 16\n",
    );
    let config = authority.client_config(BOTH, None);
    let mut hello = Vec::new();
    ClientConnection::new(config.clone(), "localhost".try_into().unwrap()).unwrap().write_tls(&mut hello).unwrap();
    let from = Ipv4Addr::new(127, 0, 0, 2);
    let began = Instant::now();
    let mut sockets: Vec<TcpStream> = (0..64).map(|_| subject.socket_from(from)).collect();
    Session::guest(subject.connect(&config)).expect("another address is not concerned");
    // An octet now and then does not give more time.
    let mut at = 0;
    while began.elapsed() < Duration::from_millis(1_200) {
        for socket in &mut sockets {
            let _ = socket.write_all(&hello[at..=at]);
        }
        at += 1;
        thread::sleep(Duration::from_millis(50));
    }
    for socket in sockets.iter_mut().take(16) {
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        assert!(answer.is_empty());
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    subject.wait_for_log("the TLS handshake took too long");
}

/// What a client may take up before it has logged in, however far it goes.
#[test]
fn strangers_take_little_memory() {
    const STRANGERS: usize = 400;
    let (authority, subject) = plain_subject(
        "handshake_timeout = 60000\nssl_handshake_timeout = 60000\nbroker.unauthenticated_max = 2000\n\
         broker.unauthenticated_max_per_address = 2000\n",
    );
    let config = authority.client_config(BOTH, None);
    // The first of a handshake that is as long as may be, and as long as it takes to read one.
    let begun = |_| {
        let mut stream = subject.socket();
        let head = [22, 3, 1, 0x40, 0, 1, 0, 0x7f, 0];
        stream.write_all(&[&head[..], &[0; 16_380], &[22, 3, 1, 0x30, 0][..], &[0; 12_000]].concat()).unwrap();
        stream
    };
    // In a session, and in the middle of a first frame and of a record.
    let in_session = |_| {
        let mut stream = subject.connect(&config);
        stream.write_all(b"AMQP\0\0\x09\x01").unwrap();
        stream.read_exact(&mut [0; 8]).unwrap();
        stream.write_all(&[&[1, 0, 0, 0, 0, 0x0f, 0xf0, 0, 10, 0, 11][..], &[0; 4_000]].concat()).unwrap();
        stream.sock.write_all(&[&[23, 3, 3, 0x40, 0][..], &[0; 16_000]].concat()).unwrap();
        stream
    };
    let measure = |what: &str, before: u64| {
        thread::sleep(Duration::from_secs(2));
        subject.signal(Signal::USR1);
        subject.wait_for_log(&format!("unauthenticated={STRANGERS} "));
        let each = (subject.broker.rss_now().unwrap().saturating_sub(before)) / STRANGERS as u64 / 1024;
        println!("{what}: {each} KiB each");
        assert!(each < 100, "{what}: {each} KiB each");
    };
    let before = subject.broker.rss_now().unwrap();
    let sockets: Vec<_> = (0..STRANGERS).map(begun).collect();
    measure("handshake begun", before);
    drop(sockets);
    thread::sleep(Duration::from_millis(500));
    let before = subject.broker.rss_now().unwrap().min(before);
    let sessions: Vec<_> = (0..STRANGERS).map(in_session).collect();
    measure("handshake done", before);
    drop(sessions);
}
