//! The harness against a real RabbitMQ; says so and passes where the package is missing.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::time::Duration;

use harness::{Broker, Error, Options, RabbitMq};

#[test]
fn starts_is_measured_is_killed_and_comes_back_on_its_port() {
    let mut broker = match RabbitMq::start() {
        Err(error @ Error::RabbitMqNotInstalled { .. }) => return eprintln!("SKIPPED: {error}"),
        other => other.unwrap(),
    };
    let (port, pid) = (broker.amqp_port(), broker.pid());
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name.trim(), "beam.smp");
    assert!(broker.cpu_time().unwrap() > Duration::from_millis(500));
    assert!(broker.rss_peak().unwrap() >= broker.rss_now().unwrap());
    assert!(broker.rss_now().unwrap() > 50 << 20);
    broker.kill_9().unwrap();
    assert!(broker.cpu_time().is_err());
    broker.restart().unwrap();
    assert_eq!(broker.amqp_port(), port);
    assert_ne!(broker.pid(), pid);
    broker.terminate().unwrap();
}

#[test]
fn nodes_form_a_cluster() {
    let nodes = match RabbitMq::start_cluster(2, &Options::default()) {
        Err(error @ Error::RabbitMqNotInstalled { .. }) => return eprintln!("SKIPPED: {error}"),
        other => other.unwrap(),
    };
    let status = nodes[1].ctl(&["cluster_status", "--formatter", "json"]).unwrap();
    let running = status.split_once("\"running_nodes\":[").unwrap().1.split(']').next().unwrap().to_owned();
    for node in &nodes {
        assert!(running.contains(&format!("harness{}@localhost", node.amqp_port())), "{status}");
    }
}
