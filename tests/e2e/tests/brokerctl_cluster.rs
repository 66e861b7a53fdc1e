//! brokerctl against two or three brokerd that form a cluster: made by joining, shown, drained, left, and formed again after its majority was lost.
//!
//! `cargo build -p broker-ctl -p broker-server` must have run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use e2e::brokerctl::{Ran, program_beside};
use e2e::wire::{Wire, publish};
use harness::{Broker, Brokerd, Options, free_port};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn program() -> PathBuf {
    program_beside(env!("CARGO_BIN_EXE_e2e-lapin"))
}

fn run(command: &mut Command) -> Ran {
    command.stdin(Stdio::null()).output().expect("brokerctl runs").into()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < give_up, "never so: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Nodes on this machine, each at first a cluster of its own with the same secret.
struct Nodes {
    all: Vec<Brokerd>,
    ports: Vec<u16>,
    _directory: TempDir,
}

impl Nodes {
    fn start(count: usize) -> Nodes {
        let directory = TempDir::new().unwrap();
        let secret = directory.path().join("secret");
        let made = run(Command::new(program()).args(["cluster", "secret", "new"]).arg(&secret));
        assert_eq!((made.code, &*made.out), (0, ""), "{made:?}");
        assert!(!made.err.contains(fs::read_to_string(&secret).unwrap().trim()), "a secret is not shown");
        let ports: Vec<u16> = (0..count).map(|_| free_port().unwrap()).collect();
        let node = |(at, port): (usize, &u16)| {
            let conf = format!(
                "cluster.secret_file = {}\ncluster.listener.ip = 127.0.0.1\ncluster.listener.port = {port}\n",
                secret.display()
            );
            let options = Options::default().conf(&conf).environment("RABBITMQ_NODENAME", &name(at));
            Brokerd::start(options).unwrap_or_else(|error| panic!("{error}"))
        };
        let all = ports.iter().enumerate().map(node).collect();
        Nodes { all, ports, _directory: directory }
    }

    /// All of them in the cluster of the first.
    fn cluster(count: usize) -> Nodes {
        let nodes = Nodes::start(count);
        for at in 1..count {
            nodes.ok(at, &["cluster", "join", &nodes.address(0)]);
        }
        for at in 0..count {
            nodes.ok(at, &["cluster", "await", &count.to_string()]);
        }
        until("all vote", || nodes.status(0)["nodes"].as_array().unwrap().iter().all(|node| node["role"] != "learner"));
        nodes
    }

    fn address(&self, at: usize) -> String {
        format!("127.0.0.1:{}", self.ports[at])
    }

    fn ctl(&self, at: usize, words: &[&str]) -> Ran {
        run(Command::new(program()).args(words).arg("--data-dir").arg(self.all[at].data_dir()))
    }

    /// The same, which must succeed.
    fn ok(&self, at: usize, words: &[&str]) -> String {
        let ran = self.ctl(at, words);
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}\n{}", self.all[at].log_tail());
        ran.out
    }

    fn old(&self, at: usize, words: &[&str]) -> Ran {
        let mut command = Command::new(program());
        command.args(["compat", "rabbitmqctl"]).args(words).env("BROKERCTL_DATA_DIR", self.all[at].data_dir());
        run(&mut command)
    }

    fn json(&self, at: usize, words: &[&str]) -> Value {
        serde_json::from_str(&self.ok(at, &[words, &["-o", "json"]].concat())).unwrap()
    }

    fn status(&self, at: usize) -> Value {
        self.json(at, &["cluster", "status"])
    }

    fn names(&self, at: usize) -> Vec<String> {
        let status = self.status(at);
        status["nodes"].as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap().to_owned()).collect()
    }

    /// A durable queue with so many messages, on a node.
    fn fill(&self, at: usize, queue: &str, messages: usize) -> Wire {
        let mut wire = Wire::open(self.all[at].amqp_port()).unwrap();
        wire.declare(queue, true).unwrap();
        for _ in 0..messages {
            wire.send(&publish(1, queue, true, b"a message")).unwrap();
        }
        until("they are there", || {
            let queues = self.json(at, &["queue", "list"]);
            let is_full = |one: &Value| one["name"] == queue && one["messages_ready"] == messages;
            queues.as_array().unwrap().iter().any(is_full)
        });
        wire
    }
}

fn name(at: usize) -> String {
    format!("rabbit{at}@127.0.0.1")
}

#[test]
fn a_node_joins_and_leaves() {
    let nodes = Nodes::start(2);
    // What the second has while it is alone is set aside.
    drop(nodes.fill(1, "left behind", 2));
    let pid = nodes.all[1].pid();
    let refused = nodes.ctl(1, &["cluster", "join", &format!("127.0.0.1:{}", free_port().unwrap())]);
    assert_eq!(refused.code, 69, "{refused:?}");
    assert!(refused.err.contains("cannot join the cluster of 127.0.0.1:"), "{refused:?}");
    let refused = nodes.ctl(1, &["cluster", "join", "no address:x"]);
    assert!(refused.err.contains("is no address: name a node as HOST"), "{refused:?}");
    assert_eq!(nodes.json(1, &["queue", "list"]).as_array().unwrap().len(), 1, "it is as it was");

    let said = nodes.ok(1, &["cluster", "join", &format!("rabbit0@{}", nodes.address(0))]);
    assert_eq!(said, format!("2 nodes are in the cluster {} now\n", name(0)));
    let stat = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(stat.trim(), "brokerd", "it keeps its process number");
    assert_eq!(nodes.names(0), [name(0), name(1)]);
    assert_eq!(nodes.status(0)["cluster_id"], nodes.status(1)["cluster_id"]);
    assert_eq!(nodes.json(1, &["queue", "list"]), json!([]));
    assert!(nodes.all[1].data_dir().join("store.before-join").is_dir());
    let again = nodes.ctl(1, &["cluster", "join", &nodes.address(0)]);
    assert!(again.err.contains("belongs to a cluster of 2 nodes: have it leave first"), "{again:?}");
    let running = nodes.ctl(0, &["cluster", "forget", &name(1)]);
    assert!(running.code == 69 && running.err.contains("is running: stop it first"), "{running:?}");
    assert_eq!(nodes.ctl(0, &["cluster", "forget", "nobody"]).code, 65);

    let _wire = nodes.fill(1, "goes", 1);
    let unsaid = nodes.ctl(1, &["cluster", "leave"]);
    assert!(unsaid.code == 64 && unsaid.err.contains("1 queues live on"), "{unsaid:?}");
    nodes.ok(1, &["cluster", "leave", "--yes"]);
    assert_eq!((nodes.names(0), nodes.names(1)), (vec![name(0)], vec![name(1)]));
    assert_ne!(nodes.status(0)["cluster_id"], nodes.status(1)["cluster_id"]);
    assert_eq!((nodes.json(0, &["queue", "list"]), nodes.json(1, &["queue", "list"])), (json!([]), json!([])));
    // Both can do all again.
    nodes.ok(0, &["vhost", "create", "a"]);
    nodes.ok(1, &["vhost", "create", "b"]);
    nodes.ok(1, &["cluster", "join", &nodes.address(0)]);
    assert_eq!(nodes.names(1), [name(0), name(1)]);
}

#[test]
fn a_node_without_a_secret_is_told_what_it_lacks() {
    let alone = Brokerd::start(Options::default()).unwrap();
    let ctl = |words: &[&str]| run(Command::new(program()).args(words).arg("--data-dir").arg(alone.data_dir()));
    let refused = ctl(&["cluster", "join", "127.0.0.1"]);
    assert_eq!(refused.code, 69, "{refused:?}");
    assert!(refused.err.contains("set cluster.secret_file in its configuration"), "{refused:?}");
    for words in [&["cluster", "leave", "--yes"][..], &["cluster", "force-boot", "--yes"]] {
        assert_ne!(ctl(words).code, 0, "{words:?}");
    }
    let status = ctl(&["cluster", "status"]);
    assert!(status.out.contains("none: the node is alone"), "{status:?}");
    assert_eq!(ctl(&["cluster", "await", "1"]).code, 0);
    assert_eq!(ctl(&["cluster", "await", "2", "--timeout", "1"]).code, 75);
}

#[test]
fn lists_and_changes_reach_all_nodes() {
    let mut nodes = Nodes::cluster(3);
    let wires: Vec<Wire> = (0..3).map(|at| nodes.fill(at, &format!("q{at}"), at + 1)).collect();
    let expected: Vec<Value> = (0..3).map(|at| json!([format!("q{at}"), at + 1, name(at), "running"])).collect();
    let listed = |nodes: &Nodes, at: usize| -> Vec<Value> {
        let queues = nodes.json(at, &["queue", "list"]);
        let row = |one: &Value| json!([one["name"], one["messages_ready"], one["node"], one["state"]]);
        queues.as_array().unwrap().iter().map(row).collect()
    };
    for at in 0..3 {
        until("all count", || listed(&nodes, at) == expected);
        let connections = nodes.json(at, &["connection", "list"]);
        let mut of: Vec<&str> =
            connections.as_array().unwrap().iter().map(|one| one["node"].as_str().unwrap()).collect();
        of.sort_unstable();
        assert_eq!(of, [&*name(0), &*name(1), &*name(2)]);
    }
    let text = nodes.ok(0, &["status"]);
    assert!(text.contains("3 of 3 nodes are running") && text.contains("3, 1 of them on this node"), "{text}");
    // Done by another node than the queue's.
    assert_eq!(nodes.ok(0, &["queue", "purge", "q2"]), "3 messages\n");
    assert_eq!(nodes.ok(2, &["queue", "delete", "q1"]), "2 messages\n");
    assert_eq!(nodes.ctl(0, &["queue", "delete", "q0", "--if-empty"]).code, 69);
    let connections = nodes.json(0, &["connection", "list"]);
    let there = connections.as_array().unwrap().iter().find(|one| one["node"] == name(2)).unwrap();
    nodes.ok(0, &["connection", "close", there["pid"].as_str().unwrap()]);
    until("it is closed", || nodes.json(0, &["connection", "list"]).as_array().unwrap().len() == 2);
    assert_eq!(nodes.ok(1, &["connection", "close", "--all"]), "2 connections closed\n");
    drop(wires);

    // One that does not answer is no error.
    nodes.all[2].kill_9().unwrap();
    let given_up = Instant::now() + PATIENCE;
    let ran = loop {
        let ran = nodes.ctl(0, &["queue", "list", "-o", "json"]);
        if ran.err.contains("rabbit2@127.0.0.1 does not answer: the counts of its queues are missing") {
            break ran;
        }
        assert!(Instant::now() < given_up, "{ran:?}");
    };
    let queues: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &queues[1]["messages"], &queues[1]["state"]), (0, &Value::Null, &json!("down")));
    let refused = nodes.ctl(0, &["queue", "purge", "q2"]);
    assert!(refused.code == 69 && refused.err.contains("rabbit2@127.0.0.1"), "{refused:?}");
    until("it is missed", || nodes.status(0)["nodes"][2]["state"] == "not seen");
    let forgotten = nodes.ok(0, &["cluster", "forget", &name(2)]);
    assert!(forgotten.contains("is forgotten, 1 queues with it"), "{forgotten}");
    assert_eq!(nodes.names(1), [name(0), name(1)]);
}

#[test]
fn without_a_majority_nobody_joins_leaves_or_is_forgotten() {
    let mut nodes = Nodes::start(4);
    for at in [1, 2] {
        nodes.ok(at, &["cluster", "join", &nodes.address(0)]);
    }
    nodes.ok(0, &["cluster", "await", "3"]);
    until("all vote", || nodes.status(0)["nodes"].as_array().unwrap().iter().all(|node| node["role"] != "learner"));
    nodes.all[1].kill_9().unwrap();
    nodes.all[2].kill_9().unwrap();
    until("they are missed", || (1..3).all(|at| nodes.status(0)["nodes"][at]["state"] == "not seen"));

    let refused = nodes.ctl(0, &["cluster", "forget", &name(2)]);
    assert!(refused.code != 0 && refused.err.contains("majority"), "{refused:?}");
    let refused = nodes.ctl(0, &["cluster", "leave"]);
    assert!(refused.code != 0 && refused.err.contains("no other node that votes is running"), "{refused:?}");
    let refused = nodes.ctl(3, &["cluster", "join", &nodes.address(0)]);
    assert!(refused.code != 0 && refused.err.contains("majority"), "{refused:?}");
    assert_eq!(nodes.names(3), [name(3)], "it goes on as it was");
    assert_eq!(nodes.names(0), [name(0), name(1), name(2)]);

    for at in [1, 2] {
        nodes.all[at].restart().unwrap();
    }
    nodes.ok(0, &["cluster", "await", "3"]);
    assert_eq!(nodes.names(0), [name(0), name(1), name(2)], "nothing of it has happened");
    nodes.ok(3, &["cluster", "join", &nodes.address(0)]);
    nodes.ok(0, &["cluster", "await", "4"]);
}

#[test]
fn a_drained_node_has_no_clients_and_does_not_lead() {
    let nodes = Nodes::cluster(3);
    let leader = nodes.status(0)["leader"].as_str().unwrap().to_owned();
    let at = (0..3).find(|at| name(*at) == leader).unwrap();
    let port = nodes.all[at].amqp_port();
    let wire = nodes.fill(at, "stays", 1);
    assert_eq!(nodes.ok(at, &["node", "drain"]), "drained, 1 connections closed\n");
    drop(wire);
    let other = (at + 1) % 3;
    until("another leads", || {
        nodes.status(other)["leader"] != json!(leader) && nodes.status(other)["leader"] != Value::Null
    });
    until("it is shown", || {
        let rows = nodes.json(other, &["node", "list"]);
        rows.as_array().unwrap().iter().any(|row| row["name"] == json!(leader) && row["state"] == "drained")
    });
    assert!(Wire::open(port).is_err(), "it serves nobody");
    let mut elsewhere = Wire::open(nodes.all[other].amqp_port()).unwrap();
    assert_eq!(elsewhere.get("stays").unwrap().as_deref(), Some(&b"a message"[..]), "its queues are there");
    assert_eq!(nodes.ok(at, &["node", "drain"]), "the node was drained already\n");
    nodes.ok(at, &["node", "revive"]);
    until("it serves again", || Wire::open(port).is_ok());
    let matrix = nodes.ok(at, &["cluster", "partitions"]);
    assert_eq!(matrix.matches("yes").count(), 6, "{matrix}");
}

#[test]
fn what_is_left_of_a_cluster_is_formed_again() {
    let mut nodes = Nodes::cluster(3);
    let before = nodes.status(0);
    drop(nodes.fill(0, "kept", 2));
    drop(nodes.fill(1, "lost", 1));
    let refused = nodes.ctl(0, &["cluster", "force-boot", "--yes"]);
    assert!(refused.err.contains("sees a majority of its cluster"), "{refused:?}");
    for at in [1, 2] {
        nodes.all[at].kill_9().unwrap();
    }
    until("the majority is missed", || nodes.status(0)["majority"] == json!(false));
    let unsaid = nodes.ctl(0, &["cluster", "force-boot"]);
    assert_eq!(unsaid.code, 64, "{unsaid:?}");
    assert!(unsaid.err.contains("rabbit1@127.0.0.1 with 1 queues, 1 of them durable"), "{unsaid:?}");
    nodes.ok(0, &["cluster", "force-boot", "--yes"]);
    let after = nodes.status(0);
    assert_ne!(after["cluster_id"], before["cluster_id"]);
    assert_eq!((nodes.names(0), &after["majority"]), (vec![name(0)], &json!(true)));
    let queues = nodes.json(0, &["queue", "list"]);
    assert_eq!((queues.as_array().unwrap().len(), &queues[0]["messages_ready"]), (1, &json!(2)), "{queues}");
    let report = fs::read_to_string(nodes.all[0].data_dir().join("force-boot.txt")).unwrap();
    assert!(report.contains("lost: rabbit1@127.0.0.1 (node 2), with 1 queues"), "{report}");
    nodes.ok(0, &["vhost", "create", "again"]);

    // The old cluster's nodes are not let in, and one with an empty directory is.
    assert!(nodes.all[0].restart().is_ok());
    assert_eq!(nodes.names(0), [name(0)]);
    let third = nodes.all[2].data_dir().to_owned();
    fs::remove_dir_all(&third).unwrap();
    nodes.all[2].restart().unwrap();
    nodes.ok(2, &["cluster", "join", &nodes.address(0)]);
    assert_eq!(nodes.names(0), [name(0), name(2)]);
}

/// What a script that makes a cluster of RabbitMQ says.
#[test]
fn the_old_words_make_a_cluster_too() {
    let nodes = Nodes::start(2);
    let target = format!("rabbit0@{}", nodes.address(0));
    for words in [&["stop_app"][..], &["reset"], &["stop_app"], &["join_cluster", &target], &["start_app"]] {
        let ran = nodes.old(1, words);
        assert_eq!(ran.code, 0, "{words:?}: {ran:?}\n{}", nodes.all[1].log_tail());
    }
    let ran = nodes.old(1, &["await_online_nodes", "2"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(nodes.old(1, &["set_cluster_name", "shop"]).code, 0);
    let status = nodes.old(0, &["cluster_status", "--formatter", "json"]);
    let status: Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status["running_nodes"], json!([name(0), name(1)]));
    assert_eq!(status["cluster_name"], "shop");
    assert_eq!(status["versions"][name(1)]["rabbitmq_version"], "3.10.8");
    let text = nodes.old(0, &["cluster_status"]).out;
    assert!(
        text.starts_with("Cluster status of node rabbit0@127.0.0.1 ...\nBasics\n\nCluster name: shop\n\n"),
        "{text}"
    );
    let running = nodes.old(0, &["forget_cluster_node", &name(1)]);
    assert!(running.code == 69 && running.err.contains("must be stopped"), "{running:?}");
    assert_eq!(nodes.old(0, &["forget_cluster_node", "nobody"]).code, 69);
    assert_eq!(nodes.old(0, &["force_boot"]).code, 69);
    assert_eq!(nodes.old(1, &["reset"]).code, 0);
    assert_eq!(nodes.names(0), [name(0)]);
}
