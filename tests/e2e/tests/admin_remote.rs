//! The admin service from elsewhere: TLS, users and their tags, contexts, completions, and health on both its ways in.
//!
//! `cargo build -p broker-ctl -p broker-server` must have run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use broker_ctl::client::{Client, block_on};
use broker_ctl::exit::Exit;
use broker_ctl::remote::Remote;
use broker_ctl::target::Target;
use e2e::brokerctl::{Ran, program_beside};
use e2e::certificates::{Authority, Pair};
use harness::{Broker, Brokerd, Options, free_port};
use rcgen::DnType;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use zeroize::Zeroizing;

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const REFUSED: &str = "brokerctl: login refused: the password is wrong, or there is no such user, or it may not log in \
                       from here; the broker's log says which\n";

/// A broker whose admin service is there over TLS, and the home of one who operates it.
struct Subject {
    broker: Brokerd,
    port: u16,
    authority: Authority,
    server: Pair,
    home: TempDir,
}

impl Subject {
    fn start(more: &str) -> Subject {
        let (authority, port) = (Authority::new("authority"), free_port().unwrap());
        let server = authority.server("server");
        let conf = format!(
            "broker.admin.listener = 127.0.0.1:{port}\nbroker.admin.ssl_options.certfile = {}\n\
             broker.admin.ssl_options.keyfile = {}\nbroker.admin.ssl_options.cacertfile = {}\n{more}",
            server.certificate.display(),
            server.key.display(),
            authority.file().display(),
        );
        let broker = Brokerd::start(Options::default().conf(&conf)).unwrap_or_else(|error| panic!("{error}"));
        Subject { broker, port, authority, server, home: TempDir::new().unwrap() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(program_beside(env!("CARGO_BIN_EXE_e2e-lapin")));
        command.env("HOME", self.home.path()).env_remove("XDG_CONFIG_HOME").stdin(Stdio::null());
        command
    }

    /// brokerctl through the socket.
    fn here(&self, words: &[&str]) -> Ran {
        self.command().args(words).arg("--data-dir").arg(self.broker.data_dir()).output().unwrap().into()
    }

    /// A user, whose password is its name.
    fn user(&self, name: &str, tags: &[&str]) {
        let file = self.password(name, name);
        let created = self.here(&["user", "create", name, "--password-file", &file, "--tags", &tags.join(",")]);
        assert_eq!(created.code, 0, "{created:?}");
    }

    fn password(&self, name: &str, password: &str) -> String {
        let path = self.home.path().join(format!("{name}.password"));
        fs::write(&path, format!("{password}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn elsewhere(&self) -> Command {
        let mut command = self.command();
        command.args(["--host", &format!("localhost:{}", self.port), "--ca-file"]).arg(self.authority.file());
        command
    }

    /// brokerctl over TLS, as a user whose password is its name.
    fn as_user(&self, user: &str, words: &[&str]) -> Ran {
        let file = self.password(user, user);
        let login = ["--login", user, "--login-password-file", &file];
        self.elsewhere().args(words).args(login).output().unwrap().into()
    }

    fn rows(&self, user: &str, words: &[&str]) -> Vec<Value> {
        let ran = self.as_user(user, &[words, &["-o", "json"]].concat());
        assert_eq!(ran.code, 0, "{user}: {words:?}: {ran:?}");
        serde_json::from_str(&ran.out).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.broker.pid()).unwrap()).unwrap(), signal).unwrap();
    }

    fn wait_for_log(&self, text: &str) {
        let give_up = Instant::now() + PATIENCE;
        while !self.broker.log_tail().contains(text) {
            assert!(Instant::now() < give_up, "no {text:?} in the log:\n{}", self.broker.log_tail());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn names(rows: &[Value], column: &str) -> Vec<String> {
    rows.iter().map(|row| row[column].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_right_password_gets_in_and_every_other_is_refused_with_the_same_words() {
    let subject = Subject::start("broker.login_failures_max = infinity\n");
    subject.user("ann", &["administrator"]);
    subject.user("nobody", &[]);
    subject.user("odd", &["impersonator"]);

    let status = subject.as_user("ann", &["status", "-o", "json"]);
    assert_eq!(status.code, 0, "{status:?}");
    let status: Value = serde_json::from_str(&status.out).unwrap();
    let admin =
        json!({"node": status["node"], "protocol": "admin/ssl", "interface": "127.0.0.1", "port": subject.port});
    assert!(status["listeners"].as_array().unwrap().contains(&admin), "{status}");
    subject.wait_for_log("an operator has logged in");

    let wrong = subject.password("wrong", "sesame-open");
    for user in ["ann", "no-such-user"] {
        let login = ["--login", user, "--login-password-file", &wrong];
        let ran = Ran::from(subject.elsewhere().args(["status"]).args(login).output().unwrap());
        assert_eq!((ran.code, &*ran.err), (77, REFUSED), "{user}");
    }
    for user in ["nobody", "odd"] {
        let ran = subject.as_user(user, &["vhost", "list"]);
        assert!(ran.code == 77 && ran.err.contains("one of the tags management"), "{ran:?}");
    }
    // A user that goes is gone at once, also where its password is remembered.
    assert_eq!(subject.here(&["user", "delete", "ann"]).code, 0);
    let ran = subject.as_user("ann", &["status"]);
    assert_eq!((ran.code, &*ran.err), (77, REFUSED));
    let log = subject.broker.log_tail();
    assert!(log.contains("login of an operator refused: wrong password") && !log.contains("sesame-open"), "{log}");
}

/// An address of this machine that is not its loopback, if it has one: to choose it, nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|address| !address.is_loopback())
}

#[test]
fn guest_comes_from_the_loopback_only_as_over_amqp() {
    let port = free_port().unwrap();
    // The later line counts.
    let subject = Subject::start(&format!("broker.admin.listener = {port}\n"));
    subject.user("ann", &["administrator"]);
    let run = |user: &str, host: &str| {
        let mut command = subject.command();
        command.args(["vhost", "list", "--server-name", "localhost", "--login", user]);
        command.args(["--login-password-file", &subject.password(user, user), "--host", host, "--ca-file"]);
        Ran::from(command.arg(subject.authority.file()).output().unwrap())
    };
    assert_eq!(run("guest", &format!("127.0.0.1:{port}")).code, 0);
    // A machine without a network has no other address.
    let Some(address) = own_address() else { return };
    let refused = run("guest", &format!("{address}:{port}"));
    assert_eq!((refused.code, &*refused.err), (77, REFUSED));
    assert_eq!(run("ann", &format!("{address}:{port}")).code, 0);
    assert!(subject.broker.log_tail().contains("user can only connect via localhost"), "{}", subject.broker.log_tail());
}

#[test]
fn a_broker_whose_certificate_is_not_trusted_is_told_no_password() {
    let subject = Subject::start("");
    let stranger = Authority::new("stranger");
    let file = subject.password("guest", "guest");
    let host = |name: &str| format!("{name}:{}", subject.port);
    let run = |host: &str, ca: PathBuf| {
        let login = ["--login", "guest", "--login-password-file", &file];
        let mut command = subject.command();
        Ran::from(command.args(["status", "--host", host, "--ca-file"]).arg(ca).args(login).output().unwrap())
    };
    let ran = run(&host("localhost"), stranger.file());
    assert!(
        ran.code == 69 && ran.err.contains("is not from an authority of") && ran.err.contains("--ca-file"),
        "{ran:?}"
    );
    let ran = run(&host("127.0.0.1"), subject.authority.file());
    assert!(ran.code == 69 && ran.err.contains("--server-name"), "{ran:?}");
    let ran = run(&format!("localhost:{}", subject.broker.amqp_port()), subject.authority.file());
    assert!(ran.code == 69 && ran.err.contains("does not speak TLS"), "{ran:?}");
    // The first that answers is asked.
    let nobody = free_port().unwrap();
    let ran = run(&format!("localhost:{nobody},{}", host("localhost")), subject.authority.file());
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = run(&format!("localhost:{nobody}"), subject.authority.file());
    assert!(ran.code == 69 && ran.err.contains("nothing listens at"), "{ran:?}");
}

#[test]
fn certificates_are_asked_for_where_that_is_said_and_replaced_while_it_runs() {
    let more = "broker.admin.ssl_options.verify = verify_peer\nbroker.admin.ssl_options.fail_if_no_peer_cert = true\n";
    let subject = Subject::start(more);
    let client = subject.authority.client("ann", &[(DnType::CommonName, "ann")]);
    let with = |pair: &Pair| {
        let file = subject.password("guest", "guest");
        let mut command = subject.elsewhere();
        command.args(["vhost", "list", "--login", "guest", "--login-password-file", &file]);
        command.arg("--certificate").arg(&pair.certificate).arg("--key").arg(&pair.key);
        Ran::from(command.output().unwrap())
    };
    assert_eq!(with(&client).code, 0);
    let without = subject.as_user("guest", &["vhost", "list"]);
    assert!(without.code == 69 && without.err.contains("name it with --certificate and --key"), "{without:?}");
    let others = Authority::new("stranger");
    let stranger = others.client("eve", &[(DnType::CommonName, "eve")]);
    let strange = with(&stranger);
    assert!(strange.code == 69 && strange.err.contains("it may have refused the certificate"), "{strange:?}");

    // What does not fit together is not taken over; the next pair is.
    let next = subject.authority.server("next");
    fs::copy(&next.certificate, &subject.server.certificate).unwrap();
    subject.signal(Signal::HUP);
    subject.wait_for_log("the ones in use stay: broker.admin.ssl_options.keyfile");
    assert_eq!(with(&client).code, 0);
    fs::copy(&next.key, &subject.server.key).unwrap();
    subject.signal(Signal::HUP);
    subject.wait_for_log("read the TLS certificates again; new connections use them listener=broker.admin.listener");
    assert_eq!(with(&client).code, 0);
}

#[test]
fn tags_decide_what_is_seen_and_done() {
    let subject = Subject::start("");
    for (name, tags) in
        [("ann", "administrator"), ("mona", "monitoring"), ("paul", "policymaker"), ("mary", "management")]
    {
        subject.user(name, &[tags]);
    }
    assert_eq!(subject.as_user("ann", &["vhost", "create", "shop"]).code, 0);
    for user in ["paul", "mary"] {
        assert_eq!(subject.as_user("ann", &["perm", "set", user, "", "", "^mine", "-p", "shop"]).code, 0);
    }
    subject.wait_for_log("an operator has asked to create the vhost 'shop'");
    let denied = |user: &str, words: &[&str]| {
        let ran = subject.as_user(user, words);
        assert_eq!(ran.code, 77, "{user}: {words:?}: {ran:?}");
        assert!(ran.err.contains(&format!("user '{user}' may not do this")), "{}", ran.err);
    };

    // What monitoring sees is everything, and it changes nothing.
    assert_eq!(names(&subject.rows("mona", &["vhost", "list"]), "name"), ["/", "shop"]);
    assert_eq!(subject.as_user("mona", &["status"]).code, 0);
    assert_eq!(subject.as_user("mona", &["cluster", "status"]).code, 0);
    denied("mona", &["vhost", "create", "mine"]);
    denied("mona", &["vhost", "delete", "shop"]);
    denied("mona", &["policy", "set", "p", "", r#"{"max-length":1}"#]);
    denied("mona", &["user", "list"]);
    denied("mona", &["definitions", "export"]);
    denied("mona", &["node", "drain"]);
    denied("mona", &["alarm", "set", "--memory-watermark", "0.1"]);
    denied("mona", &["connection", "close", "--user", "guest"]);
    denied("mona", &["queue", "purge", "any"]);

    // A manager sees its own vhosts, and none that others have.
    assert_eq!(names(&subject.rows("mary", &["vhost", "list"]), "name"), ["shop"]);
    assert!(names(&subject.rows("mary", &["exchange", "list"]), "vhost").iter().all(|vhost| vhost == "shop"));
    for vhost in ["/", "nowhere"] {
        denied("mary", &["queue", "list", "-p", vhost]);
    }
    denied("mary", &["status"]);
    denied("mary", &["policy", "list"]);
    denied("mary", &["queue", "delete", "mine-too", "-p", "shop"]);
    assert_eq!(
        subject.as_user("mary", &["queue", "purge", "mine", "-p", "shop"]).code,
        65,
        "it may, and there is none"
    );
    assert_eq!(subject.rows("mary", &["connection", "list"]), Vec::<Value>::new());

    // A policymaker makes policies in its own vhosts, and no operator policies.
    let policy = ["policy", "set", "p", "^q", r#"{"max-length":1}"#, "-p", "shop"];
    assert_eq!(subject.as_user("paul", &policy).code, 0);
    assert_eq!(names(&subject.rows("paul", &["policy", "list"]), "name"), ["p"]);
    denied("paul", &["policy", "set", "p", "^q", r#"{"max-length":1}"#]);
    denied("paul", &[&policy[..], &["--operator"]].concat());
    denied("paul", &["vhost", "delete", "shop"]);
    denied("paul", &["perm", "set", "paul", ".*", ".*", ".*", "-p", "/"]);
    // Tags count at once.
    assert_eq!(subject.as_user("ann", &["user", "tags", "mona", "administrator"]).code, 0);
    assert_eq!(subject.as_user("mona", &["vhost", "create", "mine"]).code, 0);
}

#[test]
fn contexts_are_kept_chosen_and_refused_where_others_could_read_a_password() {
    let subject = Subject::start("");
    subject.user("ann", &["administrator"]);
    let (host, ca) = (format!("localhost:{}", subject.port), subject.authority.file());
    let run = |words: &[&str]| Ran::from(subject.command().args(words).output().unwrap());
    let secret = subject.password("ann", "ann");
    let add = ["context", "add", "shop", "--host", &host, "--login", "ann", "--login-password-file", &secret];
    let added = run(&[&add[..], &["--ca-file", ca.to_str().unwrap()]].concat());
    assert_eq!((added.code, &*added.err), (0, ""));
    let directory = subject.broker.data_dir().to_str().unwrap().to_owned();
    assert_eq!(run(&["context", "set", "here", "--data-dir", &directory]).code, 0);

    assert_eq!(run(&["vhost", "list"]).code, 69, "none is selected, and there is no broker in ./data");
    assert_eq!(run(&["vhost", "list", "--context", "shop"]).code, 0);
    assert_eq!(run(&["context", "use", "shop"]).code, 0);
    assert_eq!(run(&["vhost", "create", "v"]).code, 0);
    assert!(subject.broker.log_tail().contains("an operator has asked to create the vhost 'v'"));
    assert!(run(&["compat", "rabbitmqctl", "-q", "--context", "shop", "list_vhosts"]).out.contains("\nv\n"));
    let list: Vec<Value> = serde_json::from_str(&run(&["context", "list", "-o", "json"]).out).unwrap();
    assert_eq!(names(&list, "name"), ["shop", "here"]);
    assert_eq!((&list[0]["selected"], &list[0]["user"]), (&json!(true), &json!("ann")));
    // What is said on the command line is stronger.
    assert_eq!(run(&["vhost", "list", "--data-dir", &directory]).code, 0);
    let other = run(&["vhost", "list", "--login", "bob"]);
    assert!(other.code == 64 && other.err.contains("the password of bob is needed"), "{other:?}");
    let missing = run(&["vhost", "list", "--context", "none"]);
    assert!(missing.code == 65 && missing.err.contains("there are shop, here"), "{missing:?}");

    // A password in the file is for its owner alone, and is never shown.
    let file = subject.home.path().join(".config/brokerctl/config.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace(&format!("password_file = \"{secret}\""), "password = \"ann\" # for now");
    fs::write(&file, text).unwrap();
    assert_eq!(run(&["vhost", "list"]).code, 0);
    let shown = run(&["context", "show"]);
    assert!(shown.out.contains("(not shown)") && !shown.out.contains("\"ann\""), "{shown:?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = run(&["vhost", "list"]);
    assert!(refused.code == 78 && refused.err.contains("chmod 600"), "{refused:?}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();

    assert_eq!(run(&["context", "delete", "shop"]).code, 0);
    assert_eq!(run(&["context", "show"]).code, 65, "none is selected any more");
    assert_eq!(run(&["vhost", "list", "--context", "here"]).code, 0);
}

#[test]
fn health_is_told_to_anybody_and_watched_until_the_node_ends() {
    let subject = Subject::start("");
    let here = |words: &[&str]| subject.here(words).code;
    let elsewhere = |words: &[&str]| Ran::from(subject.elsewhere().args(words).output().unwrap()).code;
    for check in ["running", "ready", "live"] {
        assert_eq!((here(&["check", check]), elsewhere(&["check", check])), (0, 0), "{check}");
    }
    // Drained: it runs, and clients are not let in.
    assert_eq!(here(&["node", "drain"]), 0);
    assert_eq!((elsewhere(&["check", "running"]), elsewhere(&["check", "ready"])), (0, 69));
    assert_eq!(here(&["node", "revive"]), 0);
    assert_eq!(elsewhere(&["check", "ready"]), 0);
    for check in [&["alarms"][..], &["local-alarms"], &["majority"], &["protocol", "admin/ssl"]] {
        assert_eq!(here(&[&["check"], check].concat()), 0, "{check:?}");
    }
    assert_eq!(here(&["check", "port", &subject.port.to_string()]), 0);
    assert_eq!(here(&["check", "protocol", "amqps"]), 69);
    let old = |words: &[&str]| subject.here(&[&["compat", "rabbitmq-diagnostics"], words].concat()).code;
    assert_eq!((old(&["check_running"]), old(&["check_local_alarms"])), (0, 0));
    assert_eq!(old(&["check_port_listener", "1"]), 69);

    let mut watchers = Vec::new();
    let mut by_socket = subject.command();
    by_socket.args(["check", "running", "-w", "--data-dir"]).arg(subject.broker.data_dir());
    let mut by_tls = subject.elsewhere();
    by_tls.args(["check", "ready", "--watch"]);
    for command in [&mut by_socket, &mut by_tls] {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().ends_with(": yes"));
        watchers.push((child, lines));
    }
    subject.signal(Signal::TERM);
    for (mut child, mut lines) in watchers {
        assert!(lines.next().expect("it is told that the node ends").unwrap().ends_with(": no"));
        assert_eq!(child.wait().unwrap().code(), Some(69));
    }
}

#[test]
fn who_says_nobody_or_too_much_is_refused_and_health_knows_its_names() {
    let subject = Subject::start("");
    let ask = |login: Option<(&str, &str)>| {
        let login = login.map(|(user, password)| (user.to_owned(), Zeroizing::new(password.to_owned())));
        let host = [format!("localhost:{}", subject.port)];
        let remote = Remote::new(&host, login, Some(&subject.authority.file()), None, None).unwrap();
        block_on(PATIENCE, async {
            let mut client = Client::connect(&Target::Elsewhere(Box::new(remote))).await?;
            assert!(client.health("broker.admin.v1.Admin").await?, "it is told to anybody");
            let unknown = client.health("no such service").await.unwrap_err();
            assert!(unknown.exit == Exit::Data && unknown.text.contains("liveness, readiness"), "{unknown}");
            client.cluster().await
        })
    };
    let nobody = ask(None).unwrap_err();
    assert!(nobody.exit == Exit::Denied && nobody.text.contains("user and password are missing"), "{nobody}");
    assert!(ask(Some(("guest", &"x".repeat(5_000)))).is_err(), "more than any password has");
    assert!(ask(Some(("guest", &"x".repeat(100_000)))).is_err(), "more than any header has");
    assert!(ask(Some(("guest", "guest"))).is_ok());
}

/// Whoever has not logged in is kept within bounds, and keeps nobody else away.
#[test]
fn connections_that_say_nothing_end_and_keep_no_operator_away() {
    let subject = Subject::start("ssl_handshake_timeout = 1000\n");
    let silent: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(("127.0.0.1", subject.port)).unwrap()).collect();
    assert_eq!(subject.as_user("guest", &["vhost", "list"]).code, 0, "their seats are taken away");
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "it has ended");
    }
    // What is no TLS at all does no harm.
    let mut noise = TcpStream::connect(("127.0.0.1", subject.port)).unwrap();
    noise.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    assert_eq!(subject.as_user("guest", &["vhost", "list"]).code, 0);
}

#[test]
fn shells_take_the_completions() {
    let run = |shell: &str| {
        let ran = Command::new(program_beside(env!("CARGO_BIN_EXE_e2e-lapin"))).args(["completion", shell]).output();
        Ran::from(ran.unwrap())
    };
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ran = run(shell);
        assert!(ran.code == 0 && ran.out.contains("force-boot") && ran.out.contains("login-password-file"), "{shell}");
    }
    assert_eq!(run("tcsh").code, 64);
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(run("bash").out.as_bytes()).unwrap();
    assert!(bash.wait().unwrap().success());
}
