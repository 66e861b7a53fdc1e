//! Passwords stay with those who said them: none in a log (whatever its level), on a command line, in the data directory, in an export
//! or in an error text. Every password here begins with `planted`, and nothing of the broker may hold that word.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use harness::{Broker, Brokerd, Options};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};

const PLANTED: &str = "planted";

const DEFINITIONS: &str = r#"{"rabbit_version": "3.10.8",
    "users": [{"name": "ann", "password": "planted-imported", "tags": "administrator"}],
    "vhosts": [{"name": "/"}],
    "permissions": [{"user": "ann", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}]}"#;

/// Every log there is, and all of it.
const LOUD: &str = "log.console.level = debug\nlog.file = all.log\nlog.file.level = debug";

async fn connect(broker: &Brokerd, login: &str, mechanism: &str) -> Result<Connection, lapin::Error> {
    let uri = format!("amqp://{login}@127.0.0.1:{}/%2f?auth_mechanism={mechanism}", broker.amqp_port());
    let uri: AMQPUri = uri.parse().unwrap();
    Connection::connect_uri(uri, ConnectionProperties::default()).await
}

/// Files below `place` that hold the word.
fn holders(place: &Path) -> Vec<String> {
    let holds =
        |octets: &[u8]| octets.windows(PLANTED.len()).any(|window| window.eq_ignore_ascii_case(PLANTED.as_bytes()));
    let mut found = Vec::new();
    for entry in fs::read_dir(place).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holders(&path));
        } else if path.is_file() && holds(&fs::read(&path).unwrap()) {
            found.push(path.display().to_string());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_in_a_login_and_a_file_stays_there() {
    let outside = tempfile::TempDir::new().unwrap();
    let file = |name: &str, text: &str| {
        let path = outside.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let options = Options::default().conf(LOUD).conf("default_user = bob\ndefault_pass = planted-default");
    let mut broker = Brokerd::start(options).unwrap_or_else(|error| panic!("{error}"));
    let control = broker.control();
    let mut said = String::new();
    let mut run = |words: &[&str]| {
        let ran = control.run(words).unwrap();
        said.push_str(&ran.text);
        ran
    };
    assert!(run(&["import_definitions", &file("sound.json", DEFINITIONS)]).succeeded);
    // Mistakes just behind a password: in its syntax, in its type, in what it may be beside.
    let mistakes = [
        r#""planted-a"#,
        r#""planted-b", "tags": 1}]}"#,
        r#""planted-c", "password_hash": "planted-d", "tags": ""}]}"#,
        r#"["planted-e"], "tags": ""}]}"#,
    ];
    for (number, mistake) in mistakes.iter().enumerate() {
        let text = format!(r#"{{"vhosts": [{{"name": "/"}}], "users": [{{"name": "eve", "password": {mistake}"#);
        assert!(!run(&["import_definitions", &file(&format!("{number}.json"), &text)]).succeeded, "{mistake}");
    }
    let export = outside.path().join("export.json");
    assert!(run(&["export_definitions", export.to_str().unwrap()]).succeeded);

    for mechanism in ["plain", "amqplain"] {
        let connection = connect(&broker, "ann:planted-imported", mechanism).await.unwrap();
        connection.update_secret("planted-token".into(), "expired".into()).await.unwrap();
        connect(&broker, "bob:planted-default", mechanism).await.unwrap();
        connect(&broker, "ann:planted-wrong", mechanism).await.unwrap_err();
        connect(&broker, "nobody:planted-unknown", mechanism).await.unwrap_err();
    }
    assert!(!run(&["authenticate_user", "ann", "wrong"]).succeeded);

    for kind in ["cmdline", "comm"] {
        let text = fs::read_to_string(format!("/proc/{}/{kind}", broker.pid())).unwrap();
        assert!(!text.contains(PLANTED), "{kind}: {text}");
    }
    broker.terminate().unwrap();
    let log = fs::read_to_string(broker.data_dir().join("log/all.log")).unwrap();
    assert!(log.contains("[debug]") && log.contains("user=ann"), "the log tells little:\n{log}");
    assert_eq!(holders(broker.data_dir()), Vec::<String>::new());
    assert!(!broker.log_tail().contains(PLANTED), "{}", broker.log_tail());
    assert!(!said.contains(PLANTED), "{said}");
    assert!(!fs::read_to_string(&export).unwrap().contains(PLANTED));
}

#[test]
fn a_start_that_fails_does_not_say_a_password() {
    for lines in [
        "defualt_pass = planted-by-a-misspelt-key",
        "default_pass planted-without-the-sign-between",
        "default_pass: planted=with-the-wrong-one",
        "default_user = \ndefault_pass = planted",
        "heartbeat = x\nssl_options.password = planted-for-a-key",
    ] {
        let error = match Brokerd::start(Options::default().conf(LOUD).conf(lines)) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("it starts with {lines}"),
        };
        // The program has said something of its own, and the word is not in it.
        assert!(error.contains("configuration error"), "{lines}: {error}");
        assert!(!error.contains(PLANTED), "{lines}: {error}");
    }
}
