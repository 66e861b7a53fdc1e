//! Commands of the old tool that have to do with other nodes. The node they are about is the one that is asked, as `-n` would have said.

use std::path::Path;
use std::time::Duration;

use proto::admin::v1::{Cluster, LeaveClusterRequest, Member};
use serde_json::{Map, Value, json};

use super::commands::{VERSION, say};
use super::words::Words;
use crate::cluster::{self, Place};
use crate::exit::{Exit, Failure};
use crate::run::print;
use crate::target::Target;

type Result<T> = std::result::Result<T, Failure>;

/// Without --timeout.
const TIMEOUT_S: u64 = 60;
/// The same for await_online_nodes.
const ONLINE_TIMEOUT_S: u64 = 300;
/// RabbitMQ's words for what a listener is for.
const PURPOSES: &[(&str, &str)] = &[
    ("amqp", "AMQP 0-9-1 and AMQP 1.0"),
    ("amqp/ssl", "AMQP 0-9-1 and AMQP 1.0 over TLS"),
    ("clustering", "inter-node and CLI tool communication"),
];

/// Runs a command, if it is one of these.
pub fn run(words: &Words, target: &Target) -> Option<Result<()>> {
    let of =
        |timeout: u64| Place { target: target.clone(), timeout: Duration::from_secs(words.timeout.unwrap_or(timeout)) };
    let place = of(TIMEOUT_S);
    Some(match words.command.as_str() {
        "cluster_status" => status(words, &place),
        "join_cluster" => join(words, &place),
        "forget_cluster_node" => forget(words, &place),
        "reset" => reset(words, &place),
        "force_boot" => force_boot(words, &place),
        "await_online_nodes" => online(words, &of(ONLINE_TIMEOUT_S)),
        "stop_app" | "start_app" => application(words, &place),
        _ => return None,
    })
}

fn own_name(place: &Place) -> Result<String> {
    Ok(cluster::own(&place.cluster()?).map(|own| own.name.clone()).unwrap_or_default())
}

fn status(words: &Words, place: &Place) -> Result<()> {
    words.exactly::<0>("cluster_status")?;
    let cluster = place.cluster()?;
    if words.json {
        return print(&format!("{}\n", json_of(&cluster)));
    }
    let own = cluster::own(&cluster).map(|own| own.name.clone()).unwrap_or_default();
    say(words, &format!("Cluster status of node {own} ..."))?;
    print(&text_of(&cluster))
}

fn running(cluster: &Cluster) -> impl Iterator<Item = &Member> {
    cluster.members.iter().filter(|one| one.running)
}

/// Protocol, interface and port of each.
fn listeners(one: &Member) -> Vec<(String, String, u32)> {
    let any = |address: &str| if address == "::" { "[::]".into() } else { address.to_owned() };
    let of_nodes = one.address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let of_nodes = of_nodes.map(|port| ("clustering".to_owned(), "[::]".to_owned(), port));
    let of_clients = one.listeners.iter().map(|at| (at.protocol.clone(), any(&at.address), at.port));
    of_nodes.into_iter().chain(of_clients).collect()
}

fn purpose(protocol: &str) -> &str {
    PURPOSES.iter().find(|(name, _)| *name == protocol).map_or("", |(_, purpose)| purpose)
}

fn maintenance(one: &Member) -> &'static str {
    if one.drained { "marked for maintenance" } else { "not under maintenance" }
}

/// As `rabbitmqctl cluster_status --formatter json`.
fn json_of(cluster: &Cluster) -> Value {
    let names = |members: Vec<&Member>| members.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
    let of_running = |value: &dyn Fn(&Member) -> Value| -> Map<String, Value> {
        running(cluster).map(|one| (one.name.clone(), value(one))).collect()
    };
    let alarms: Vec<Value> = running(cluster)
        .flat_map(|one| cluster::alarms(one).into_iter().map(move |resource| (one, resource)))
        .map(|(one, resource)| json!({"node": one.name, "resource": resource, "type": "resource_limit"}))
        .collect();
    let mut partitions: Map<String, Value> = Map::new();
    for (one, other) in cluster::apart(cluster) {
        for (node, missed) in [(one, other), (other, one)] {
            let entry = partitions.entry(node.name.clone()).or_insert_with(|| json!([]));
            if let Value::Array(nodes) = entry {
                nodes.push(missed.name.clone().into());
            }
        }
    }
    let listed = |one: &Member| -> Value {
        let listeners = listeners(one).into_iter().map(|(protocol, interface, port)| {
            json!({"node": one.name, "protocol": protocol, "interface": interface, "port": port, "purpose": purpose(&protocol)})
        });
        listeners.collect::<Vec<_>>().into()
    };
    json!({
        "alarms": alarms,
        "cluster_name": cluster.name,
        "disk_nodes": names(cluster.members.iter().collect()),
        "feature_flags": [],
        "listeners": of_running(&listed),
        "maintenance_status": of_running(&|one| maintenance(one).into()),
        "partitions": partitions,
        "ram_nodes": [],
        "running_nodes": names(running(cluster).collect()),
        "versions": of_running(&|one| json!({
            "rabbitmq_name": "RabbitMQ",
            "rabbitmq_version": VERSION,
            "erlang_version": "",
            "product_version": one.software,
        })),
    })
}

/// As `rabbitmqctl cluster_status`.
fn text_of(cluster: &Cluster) -> String {
    let or_none = |lines: Vec<String>| if lines.is_empty() { vec!["(none)".to_owned()] } else { lines };
    let of_running = |line: &dyn Fn(&Member) -> String| running(cluster).map(line).collect::<Vec<_>>();
    let alarms = running(cluster).flat_map(|one| {
        let named = |resource: &str| format!("{} alarm on node {}", capital(resource), one.name);
        cluster::alarms(one).into_iter().map(named).collect::<Vec<_>>()
    });
    let apart = cluster::apart(cluster);
    let partitions =
        apart.iter().map(|(one, other)| format!("Node {} cannot communicate with {}", one.name, other.name));
    let listed = running(cluster).flat_map(|one| {
        let line = |(protocol, interface, port): (String, String, u32)| {
            let purpose = purpose(&protocol).to_owned();
            format!(
                "Node: {}, interface: {interface}, port: {port}, protocol: {protocol}, purpose: {purpose}",
                one.name
            )
        };
        listeners(one).into_iter().map(line).collect::<Vec<_>>()
    });
    let sections = [
        ("Basics", vec![format!("Cluster name: {}", cluster.name)]),
        ("Disk Nodes", cluster.members.iter().map(|one| one.name.clone()).collect()),
        ("Running Nodes", of_running(&|one| one.name.clone())),
        ("Versions", of_running(&|one| format!("{}: RabbitMQ {VERSION} ({})", one.name, one.software))),
        ("Maintenance status", of_running(&|one| format!("Node: {}, status: {}", one.name, maintenance(one)))),
        ("Alarms", or_none(alarms.collect())),
        ("Network Partitions", or_none(partitions.collect())),
        ("Listeners", listed.collect()),
        ("Feature flags", vec!["(all are always on)".into()]),
    ];
    let section = |(heading, lines): &(&str, Vec<String>)| format!("{heading}\n\n{}\n", lines.join("\n"));
    sections.iter().map(section).collect::<Vec<_>>().join("\n")
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn join(words: &Words, place: &Place) -> Result<()> {
    let [node] = words.exactly("join_cluster NODE")?;
    let before = place.cluster()?;
    let own = cluster::own(&before).map(|own| own.name.clone()).unwrap_or_default();
    say(words, &format!("Clustering node {own} with {node}"))?;
    if before.members.len() > 1 && before.members.iter().any(|one| one.name == *node) {
        return print("The node is already a member of this cluster\n");
    }
    cluster::join(place, node).map(drop)
}

fn forget(words: &Words, place: &Place) -> Result<()> {
    let [node] = words.exactly("forget_cluster_node NODE")?;
    say(words, &format!("Removing node {node} from the cluster"))?;
    let before = place.cluster()?;
    match before.members.iter().find(|one| one.name == *node) {
        None => {
            let text = "{:not_a_cluster_node, 'The node selected is not in the cluster.'}";
            Err(Failure::new(Exit::Unavailable, text))
        }
        Some(one) if one.running => {
            let text = format!("RabbitMQ on node {node} must be stopped before it can be removed");
            Err(Failure::new(Exit::Unavailable, text))
        }
        Some(_) => place.ask(async |client| client.forget_node(node).await).map(drop),
    }
}

fn reset(words: &Words, place: &Place) -> Result<()> {
    words.exactly::<0>("reset")?;
    say(words, &format!("Resetting node {} ...", own_name(place)?))?;
    cluster::leave_or_reset(place, LeaveClusterRequest { stop: false, reset: true }).map(drop)
}

fn force_boot(words: &Words, place: &Place) -> Result<()> {
    words.exactly::<0>("force_boot")?;
    let directory = match &place.target {
        Target::Here(socket) => socket.parent().map(Path::to_owned),
        Target::Elsewhere(_) => None,
    };
    say(words, "Forcing the node to form its cluster again by itself ...")?;
    // The old tool has nobody asked whether it is meant.
    print(&cluster::force_boot(place, directory, true)?)
}

fn online(words: &Words, place: &Place) -> Result<()> {
    let [count] = words.exactly("await_online_nodes COUNT")?;
    let nodes = count.parse().map_err(|_| Failure::usage(format!("'{count}' is no number of nodes")))?;
    let seconds = place.timeout.as_secs();
    say(words, &format!("Will wait for at least {nodes} nodes to join the cluster. Timeout: {seconds} seconds."))?;
    cluster::wait_for(place, nodes)
}

/// What stops in RabbitMQ is all but the virtual machine. Here the node goes on, without clients.
fn application(words: &Words, place: &Place) -> Result<()> {
    words.exactly::<0>(&words.command)?;
    let stop = words.command == "stop_app";
    let doing = if stop { "Stopping rabbit application on" } else { "Starting" };
    say(words, &format!("{doing} node {} ...", own_name(place)?))?;
    place.ask(async |client| client.set_drained(stop).await).map(drop)
}

#[cfg(test)]
mod tests {
    use proto::admin::v1::Listener;

    use super::*;

    fn cluster() -> Cluster {
        let listener = Listener { protocol: "amqp".into(), address: "::".into(), port: 5672 };
        let member = |number: u64| Member {
            number,
            name: format!("rabbit@{number}"),
            address: format!("{number}:25672"),
            running: number < 3,
            heard: true,
            voter: true,
            sees: vec![1, 2],
            listeners: vec![listener.clone()],
            software: "brokerd 1".into(),
            memory_alarm: number == 2,
            drained: number == 2,
            ..Member::default()
        };
        let members = (1..=3).map(member).collect();
        Cluster { name: "c".into(), id: "ab".into(), node: 1, leader: 1, members, majority: true, ..Cluster::default() }
    }

    /// Keys and shapes that tools look at.
    #[test]
    fn the_status_has_the_old_shape() {
        let json = json_of(&cluster());
        assert_eq!(json["disk_nodes"], json!(["rabbit@1", "rabbit@2", "rabbit@3"]));
        assert_eq!(json["running_nodes"], json!(["rabbit@1", "rabbit@2"]));
        assert_eq!((&json["ram_nodes"], &json["partitions"]), (&json!([]), &json!({})));
        assert_eq!(json["versions"]["rabbit@1"]["rabbitmq_version"], VERSION);
        assert_eq!(json["alarms"], json!([{"node": "rabbit@2", "resource": "memory", "type": "resource_limit"}]));
        assert_eq!(json["maintenance_status"]["rabbit@2"], "marked for maintenance");
        let listener = &json["listeners"]["rabbit@1"][1];
        assert_eq!((&listener["interface"], &listener["port"]), (&json!("[::]"), &json!(5672)));
        let text = text_of(&cluster());
        assert!(
            text.starts_with(
                "Basics\n\nCluster name: c\n\nDisk Nodes\n\nrabbit@1\nrabbit@2\nrabbit@3\n\nRunning Nodes\n\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("\n\nAlarms\n\nMemory alarm on node rabbit@2\n\nNetwork Partitions\n\n(none)\n\nListeners\n"),
            "{text}"
        );
    }
}
