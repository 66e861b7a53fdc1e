//! Every case of cases.txt, through every client library, against a broker of its own.
//!
//! `tests/e2e/install` must have run. E2E_BROKER=rabbitmq runs the same against RabbitMQ, which proves the tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use e2e::{ClientProgram, start_subject};
use harness::Options;

/// Where `tests/e2e/install` puts what it builds: TARGET/e2e, beside TARGET/PROFILE/e2e-lapin.
fn installed(name: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_e2e-lapin"));
    let target = program.ancestors().nth(2).expect("a target directory");
    target.join("e2e").join(name).display().to_string()
}

fn check(language: &str, command: &[&str]) {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(language);
    let command = command.iter().map(|part| (*part).to_owned()).collect();
    let mut broker = start_subject(Options::default()).unwrap_or_else(|error| panic!("{error}"));
    let report = ClientProgram { command, directory }.run(broker.as_mut());
    let failures = report.failures();
    assert!(
        failures.is_empty(),
        "{} of {} cases against {} failed:\n{}\nthe broker's last words:\n{}",
        failures.len(),
        e2e::case_names().count(),
        broker.name(),
        failures.join("\n"),
        broker.log_tail(),
    );
}

#[test]
fn rust_lapin() {
    check("rust", &[env!("CARGO_BIN_EXE_e2e-lapin")]);
}

#[test]
fn python_pika() {
    check("python", &[&installed("python/bin/python"), "main.py"]);
}

#[test]
fn node_amqplib() {
    check("node", &["node", "main.js"]);
}

#[test]
fn go_amqp091() {
    check("go", &[&installed("go-cases")]);
}

#[test]
fn java_amqp_client() {
    check("java", &["java", "-cp", "target/classes:target/dependency/*", "e2e.Main"]);
}
