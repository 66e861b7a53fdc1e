//! Checks: whether a node is as it should be, for probes and scripts.

use std::fmt::Write as _;

use proto::admin::v1::{Listener, Member};
use serde_json::json;

use crate::args::{Check, Form};
use crate::client::Client;
use crate::cluster::alarms;
use crate::exit::{Exit, Failure};
use crate::run::print;
use crate::target::Asking;

type Result<T> = std::result::Result<T, Failure>;

/// Name of the service that says whether the node serves, and more of it.
pub const RUNNING: &str = "";
const READY: &str = "readiness";
const LIVE: &str = "liveness";
/// What RabbitMQ calls a protocol, and what its listener is called.
const PROTOCOLS: [(&str, &str); 2] = [("amqps", "amqp/ssl"), ("amqp091", "amqp")];

impl Check {
    /// Health is told to anybody; for the rest one has to log in.
    pub fn asking(&self) -> Asking {
        if self.health().is_some() { Asking::Anybody } else { Asking::User }
    }

    /// The service whose health it is about, what it is called, and whether it is watched.
    pub fn health(&self) -> Option<(&'static str, &'static str, bool)> {
        match self {
            Check::Running { watch } => Some((RUNNING, "running", *watch)),
            Check::Ready { watch } => Some((READY, "ready", *watch)),
            Check::Live { watch } => Some((LIVE, "live", *watch)),
            _ => None,
        }
    }
}

/// Carries a check out; what it prints if all is well.
pub async fn run(client: &mut Client, check: &Check, form: Form) -> Result<String> {
    if let Some((service, name, watch)) = check.health() {
        if watch {
            return follow(client, service, name, form).await;
        }
        let problem = format!("the node is not {name}: see `brokerctl status` and its log");
        return verdict(name, client.health(service).await?, &problem, form);
    }
    match check {
        Check::Alarms => {
            let set = alarms_of(&client.cluster().await?.members);
            verdict("alarms", set.is_empty(), &format!("alarms are set: {}", set.join(", ")), form)
        }
        Check::LocalAlarms => {
            let alarms = client.status().await?.alarms.unwrap_or_default();
            let set = [("memory", alarms.memory_alarm), ("disk", alarms.disk_alarm)];
            let set: Vec<&str> = set.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect();
            verdict("local-alarms", set.is_empty(), &format!("alarms are set: {}", set.join(", ")), form)
        }
        Check::Majority => {
            let sees = client.cluster().await?.majority;
            verdict(
                "majority",
                sees,
                "the node sees no majority of its cluster: see `brokerctl cluster partitions`",
                form,
            )
        }
        Check::Port { port } => {
            let listeners = client.status().await?.listeners;
            let problem = format!("the node does not listen on port {port}: {}", places(&listeners));
            verdict("port", has_port(&listeners, *port), &problem, form)
        }
        Check::Protocol { name } => {
            let listeners = client.status().await?.listeners;
            let problem = format!("the node does not listen for {name}: {}", places(&listeners));
            verdict("protocol", has_protocol(&listeners, name), &problem, form)
        }
        Check::Running { .. } | Check::Ready { .. } | Check::Live { .. } => Ok(String::new()),
    }
}

/// Alarms of nodes that run, as `RESOURCE on NODE`.
pub fn alarms_of(members: &[Member]) -> Vec<String> {
    members
        .iter()
        .flat_map(|one| alarms(one).into_iter().map(|resource| format!("{resource} on {}", one.name)))
        .collect()
}

/// Whether one of them has that port.
pub fn has_port(listeners: &[Listener], port: u16) -> bool {
    listeners.iter().any(|one| one.port == u32::from(port))
}

/// Whether one of them is for that protocol.
pub fn has_protocol(listeners: &[Listener], name: &str) -> bool {
    let known = PROTOCOLS.iter().find(|(other, _)| *other == name).map_or(name, |(_, known)| known);
    listeners.iter().any(|one| one.protocol == known)
}

fn places(listeners: &[Listener]) -> String {
    let mut text = String::from("it listens");
    for (index, one) in listeners.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a text does not fail.
        let _ = write!(text, "{comma} for {} on port {}", one.protocol, one.port);
    }
    if listeners.is_empty() { "it does not listen at all".into() } else { text }
}

fn verdict(name: &str, is_well: bool, problem: &str, form: Form) -> Result<String> {
    if is_well { Ok(line(name, true, form)) } else { Err(Failure::new(Exit::Unavailable, problem)) }
}

fn line(name: &str, is_well: bool, form: Form) -> String {
    match form {
        Form::Json => format!("{}\n", json!({"check": name, "ok": is_well})),
        Form::Table => format!("{name}: {}\n", if is_well { "yes" } else { "no" }),
    }
}

/// Tells every change until the node goes away; how it was last decides how this ends.
async fn follow(client: &mut Client, service: &str, name: &str, form: Form) -> Result<String> {
    let mut last = false;
    let mut watched = client.watch_health(service).await?;
    while let Some(is_well) = watched.next().await? {
        last = is_well;
        print(&line(name, is_well, form))?;
    }
    if last {
        Ok(String::new())
    } else {
        Err(Failure::new(Exit::Unavailable, format!("the node is not {name} any more")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_found_by_port_and_by_the_names_of_protocols() {
        let at = |protocol: &str, port| Listener { protocol: protocol.into(), address: "::".into(), port };
        let listeners = [at("amqp", 5672), at("amqp/ssl", 5671)];
        assert!(has_port(&listeners, 5671) && !has_port(&listeners, 15_680));
        for name in ["amqp", "amqps", "amqp/ssl", "amqp091"] {
            assert!(has_protocol(&listeners, name), "{name}");
        }
        assert!(!has_protocol(&listeners, "mqtt"));
        assert_eq!(places(&listeners), "it listens for amqp on port 5672, for amqp/ssl on port 5671");
    }

    #[test]
    fn alarms_of_nodes_that_are_gone_do_not_count() {
        let node = |name: &str, running| Member { name: name.into(), running, disk_alarm: true, ..Member::default() };
        assert_eq!(alarms_of(&[node("a", true), node("b", false)]), ["disk on a"]);
    }
}
