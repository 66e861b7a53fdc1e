//! Checks in the words of `rabbitmq-diagnostics`: its texts, and code 69 for what is not as it should be.

use std::time::Duration;

use super::commands::say;
use super::words::Words;
use crate::check::{RUNNING, alarms_of, has_port, has_protocol};
use crate::client::{Client, block_on};
use crate::cluster::own;
use crate::exit::{Exit, Failure};
use crate::run::print;
use crate::target::Target;

type Result<T> = std::result::Result<T, Failure>;

/// Without --timeout.
const TIMEOUT_S: u64 = 60;

/// Runs a command, if it is one of these.
pub fn run(words: &Words, target: &Target) -> Option<Result<()>> {
    let is_check =
        ["check_running", "check_alarms", "check_local_alarms", "check_port_listener", "check_protocol_listener"]
            .contains(&words.command.as_str());
    is_check.then(|| {
        let timeout = Duration::from_secs(words.timeout.unwrap_or(TIMEOUT_S));
        let text = block_on(timeout, async { carry_out(&mut Client::connect(target).await?, words).await })?;
        print(&text)
    })
}

async fn carry_out(client: &mut Client, words: &Words) -> Result<String> {
    let cluster = client.cluster().await?;
    let node = own(&cluster).map(|own| own.name.clone()).unwrap_or_default();
    let saying = |text: String| say(words, &text);
    let failed = |text: String| Err(Failure::new(Exit::Unavailable, text));
    let said = |text: String| Ok(if words.quiet { String::new() } else { text + "\n" });
    match words.command.as_str() {
        "check_running" => {
            words.exactly::<0>("check_running")?;
            saying(format!("Checking if RabbitMQ is running on node {node} ..."))?;
            if !client.health(RUNNING).await? {
                return failed(format!("RabbitMQ on node {node} is not running or is not fully booted"));
            }
            said(format!("RabbitMQ on node {node} is fully booted and running"))
        }
        "check_alarms" => {
            words.exactly::<0>("check_alarms")?;
            saying(format!("Asking node {node} to report any known resource alarms ..."))?;
            let set = alarms_of(&cluster.members);
            if !set.is_empty() {
                return failed(format!("Node {node} reported alarms: {}", set.join(", ")));
            }
            said(format!("Node {node} reported no alarms, local or clusterwide"))
        }
        "check_local_alarms" => {
            words.exactly::<0>("check_local_alarms")?;
            saying(format!("Asking node {node} to report any local resource alarms ..."))?;
            let set = own(&cluster).map(|own| alarms_of(std::slice::from_ref(own))).unwrap_or_default();
            if !set.is_empty() {
                return failed(format!("Node {node} reported local alarms: {}", set.join(", ")));
            }
            said(format!("Node {node} reported no local alarms"))
        }
        "check_port_listener" => {
            let [port] = words.exactly("check_port_listener PORT")?;
            let number = port.parse().map_err(|_| Failure::usage(format!("'{port}' is no port")))?;
            saying(format!("Asking node {node} if there's an active listener on port {port} ..."))?;
            if !has_port(&client.status().await?.listeners, number) {
                return failed(format!("No listener for port {port} is active on node {node}"));
            }
            said(format!("A listener for port {port} is running on node {node}."))
        }
        _ => {
            let [protocol] = words.exactly("check_protocol_listener PROTOCOL")?;
            saying(format!("Asking node {node} if there's an active listener for protocol {protocol} ..."))?;
            if !has_protocol(&client.status().await?.listeners, protocol) {
                return failed(format!("No listener for protocol {protocol} is active on node {node}"));
            }
            said(format!("A listener for protocol {protocol} is running on node {node}."))
        }
    }
}
