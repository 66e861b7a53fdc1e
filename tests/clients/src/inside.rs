//! A suite's run from within its own network: the broker on port 5672, then the suite's program.

use std::fs;
use std::process::Command;

use harness::Options;

use crate::administration;
use crate::error::Error;
use crate::notes::Notes;
use crate::places;
use crate::programs::{self, Surroundings};
use crate::subject::Subject;
use crate::suites::Suite;

/// Brings up the network, starts the broker, runs the suite and leaves the outcomes and the end of the broker's log in files.
pub fn run(suite: &Suite, subject: Subject, left_out: &Notes) -> Result<(), Error> {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    up.map_err(Error::io("starting ip (iproute2)"))?;
    let directory = places::run_directory(suite, subject);
    let options = Options::default().amqp_port(5672).conf(&tls()).conf(suite.conf);
    let administered = administration::start(subject, options, &directory)?;
    let surroundings = Surroundings {
        directory: &directory,
        outcomes: &places::outcomes(suite, subject),
        left_out: left_out.of(suite).collect(),
        rabbitmqctl: administered.rabbitmqctl.as_deref(),
    };
    let result = programs::run(suite, &surroundings);
    let log = directory.join("broker.log");
    fs::write(&log, administered.broker.log_tail()).map_err(Error::io(format!("writing {}", log.display())))?;
    result
}

/// TLS beside plain text, as the brokers have it that the suites' authors test with: client certificates are
/// looked at, none is asked for.
fn tls() -> String {
    let certificate = |name: &str| places::installed().join("certs").join(name).display().to_string();
    format!(
        "listeners.ssl.default = 5671\nssl_options.cacertfile = {}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n\
         ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = false",
        certificate("authorities.pem"),
        certificate("server_certificate.pem"),
        certificate("server_key.pem"),
    )
}
