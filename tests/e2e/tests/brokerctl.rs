//! brokerctl against a real brokerd, in its own words and in those of rabbitmqctl; definitions files at boot, live and back.
//!
//! `cargo build -p broker-ctl -p broker-server` must have run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use e2e::brokerctl::{Ran, program_beside};
use harness::{Broker, Brokerd, Options};
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long something may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Exported by `rabbitmqctl export_definitions` of RabbitMQ 3.10.8.
const RECORDED: &str = "../../broker-mgmt/tests/recorded/rabbitmq-3.10.8.json";

fn program() -> PathBuf {
    program_beside(env!("CARGO_BIN_EXE_e2e-lapin"))
}

fn start(options: Options) -> Brokerd {
    Brokerd::start(options).unwrap_or_else(|error| panic!("{error}"))
}

fn with_input(command: &mut Command, input: &str) -> Ran {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("brokerctl runs");
    // Who does not read its input may have closed it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    Ran::from(child.wait_with_output().unwrap())
}

/// brokerctl with these words.
fn ctl(broker: &Brokerd, words: &[&str]) -> Ran {
    with_input(Command::new(program()).args(words).arg("--data-dir").arg(broker.data_dir()), "")
}

/// The same, which must succeed.
fn ok(broker: &Brokerd, words: &[&str]) -> String {
    let ran = ctl(broker, words);
    assert_eq!(ran.code, 0, "{words:?}: {ran:?}");
    ran.out
}

fn rows(broker: &Brokerd, words: &[&str]) -> Vec<Value> {
    let text = ok(broker, &[words, &["-o", "json"]].concat());
    serde_json::from_str(&text).unwrap()
}

/// rabbitmqctl with these words.
fn old(broker: &Brokerd, words: &[&str]) -> Ran {
    let mut command = Command::new(program());
    command.args(["compat", "rabbitmqctl"]).args(words).env("BROKERCTL_DATA_DIR", broker.data_dir());
    with_input(&mut command, "")
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < give_up, "never so: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

async fn connect(broker: &Brokerd, user: &str, password: &str, vhost: &str) -> Result<Connection, lapin::Error> {
    let uri: AMQPUri = format!("amqp://{user}:{password}@127.0.0.1:{}/{vhost}", broker.amqp_port()).parse().unwrap();
    Connection::connect_uri(uri, ConnectionProperties::default()).await
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn vhosts_users_and_permissions() {
    let broker = start(Options::default());
    ok(&broker, &["vhost", "create", "shop", "--description", "the shop"]);
    let twice = ctl(&broker, &["vhost", "create", "shop"]);
    assert_eq!((twice.code, &*twice.err), (69, "brokerctl: vhost 'shop' exists\n"));
    assert!(rows(&broker, &["vhost", "list"]).iter().any(|row| row["description"] == "the shop"));

    let create = |words: &[&str], input: &str| {
        with_input(Command::new(program()).args(words).arg("--data-dir").arg(broker.data_dir()), input)
    };
    assert_eq!(create(&["user", "create", "ann", "--tags", "monitoring"], "sec ret\n").code, 0);
    assert_eq!(create(&["user", "create", "ann"], "other\n").code, 69);
    assert_eq!(create(&["user", "create", "bob"], "\n").code, 65, "an empty password");
    assert_eq!(rows(&broker, &["user", "list"])[0], json!({"user": "ann", "tags": ["monitoring"]}));

    ok(&broker, &["perm", "set", "ann", ".*", "", ".*", "-p", "shop"]);
    let row = json!({"vhost": "shop", "user": "ann", "configure": ".*", "write": "", "read": ".*"});
    assert!(rows(&broker, &["perm", "list"]).contains(&row));
    assert_eq!(ctl(&broker, &["perm", "set", "nobody", "", "", "", "-p", "shop"]).code, 67);
    assert_eq!(ctl(&broker, &["perm", "set", "ann", "", "", "", "-p", "nowhere"]).code, 65);
    assert_eq!(ctl(&broker, &["perm", "set", "ann", "[", "", "", "-p", "shop"]).code, 65);
    block_on(async {
        connect(&broker, "ann", "sec%20ret", "shop").await.unwrap();
        assert!(connect(&broker, "ann", "wrong", "shop").await.is_err());
        assert_eq!(create(&["user", "passwd", "ann"], "new").code, 0);
        connect(&broker, "ann", "new", "shop").await.unwrap();
        ok(&broker, &["perm", "clear", "ann", "-p", "shop"]);
        assert!(connect(&broker, "ann", "new", "shop").await.is_err());
    });
    ok(&broker, &["user", "tags", "ann", "management", "x"]);
    assert_eq!(rows(&broker, &["user", "list"])[0]["tags"], json!(["management", "x"]));
    ok(&broker, &["user", "delete", "ann"]);
    assert_eq!(ctl(&broker, &["user", "delete", "ann"]).code, 67);
    ok(&broker, &["vhost", "delete", "shop"]);
    assert_eq!(ctl(&broker, &["vhost", "delete", "shop"]).code, 65);
}

#[test]
fn queues_connections_channels_and_consumers() {
    let broker = start(Options::default());
    block_on(async {
        let connection = connect(&broker, "guest", "guest", "%2f").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        for name in ["orders", "idle"] {
            channel.queue_declare(name.into(), durable, FieldTable::default()).await.unwrap();
        }
        for _ in 0..3 {
            let (publish, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            channel.basic_publish("".into(), "idle".into(), publish, b"x", properties).await.unwrap();
        }
        channel.basic_qos(7, BasicQosOptions::default()).await.unwrap();
        let consume = BasicConsumeOptions::default();
        let consumer =
            channel.basic_consume("orders".into(), "tag".into(), consume, FieldTable::default()).await.unwrap();

        until("three messages", || rows(&broker, &["queue", "list"])[0]["messages_ready"] == 3);
        let queues = rows(&broker, &["queue", "list", "-p", "/", "--columns", "name,durable,consumers"]);
        assert_eq!(queues[1], json!({"name": "orders", "durable": true, "consumers": 1}));
        let connections = rows(&broker, &["connection", "list"]);
        assert_eq!(connections.len(), 1);
        assert_eq!((&connections[0]["user"], &connections[0]["state"]), (&json!("guest"), &json!("running")));
        let channels = rows(&broker, &["channel", "list"]);
        assert_eq!((&channels[0]["prefetch_count"], &channels[0]["consumer_count"]), (&json!(7), &json!(1)));
        let consumers = rows(&broker, &["consumer", "list"]);
        assert_eq!((&consumers[0]["consumer_tag"], &consumers[0]["queue_name"]), (&json!("tag"), &json!("orders")));
        assert!(rows(&broker, &["binding", "list"]).iter().any(|row| row["routing_key"] == "orders"));
        assert_eq!(
            old(&broker, &["-q", "list_queues", "name", "messages"]).out,
            "name\tmessages\nidle\t3\norders\t0\n"
        );

        assert_eq!(ctl(&broker, &["queue", "delete", "idle", "--if-empty"]).code, 69);
        assert_eq!(ctl(&broker, &["queue", "delete", "orders", "--if-unused"]).code, 69);
        assert_eq!(ok(&broker, &["queue", "purge", "idle"]), "3 messages\n");
        assert_eq!(ok(&broker, &["queue", "delete", "idle", "--if-empty"]), "0 messages\n");
        assert_eq!(ctl(&broker, &["queue", "purge", "idle"]).code, 65);

        let status: Value = serde_json::from_str(&ok(&broker, &["status", "-o", "json"])).unwrap();
        assert_eq!(status["totals"]["queue_count"], 1);
        assert_eq!(status["totals"]["connection_count"], 1);

        assert_eq!(ctl(&broker, &["connection", "close"]).code, 64, "which one must be said");
        let pid = connections[0]["pid"].as_str().unwrap();
        ok(&broker, &["connection", "close", pid, "--reason", "maintenance at noon"]);
        until("the connection is gone", || rows(&broker, &["connection", "list"]).is_empty());
        until("the client knows", || !connection.status().connected());
        let error = channel.queue_declare("x".into(), durable, FieldTable::default()).await.unwrap_err();
        drop(consumer);
        let said = format!("{error:?}");
        assert!(said.contains("CONNECTION_FORCED - maintenance at noon") || said.contains("InvalidC"), "{said}");
        assert!(broker.log_tail().contains("maintenance at noon"), "{}", broker.log_tail());

        connect(&broker, "guest", "guest", "%2f").await.unwrap();
        let second = connect(&broker, "guest", "guest", "%2f").await.unwrap();
        assert_eq!(ok(&broker, &["connection", "close", "--user", "nobody"]), "0 connections closed\n");
        assert!(old(&broker, &["close_all_connections", "bye"]).out.ends_with(" connections\n"));
        until("it is closed", || !second.status().connected());
        until("the log says why", || broker.log_tail().contains("bye"));
    });
}

#[test]
fn alarms_are_set_and_cleared() {
    let broker = start(Options::default());
    let memory = || rows(&broker, &["alarm", "list"])[0]["alarm"] == true;
    assert!(!memory());
    assert_eq!(old(&broker, &["set_vm_memory_high_watermark", "0.00000001"]).code, 0);
    until("publishers are blocked", || broker.log_tail().contains("memory alarm set"));
    assert!(memory());
    ok(&broker, &["alarm", "set", "--memory-watermark", "0.4"]);
    until("publishers go on", || broker.log_tail().contains("memory alarm cleared"));
    assert!(!memory());
    ok(&broker, &["alarm", "set", "--disk-limit", "1000000GB"]);
    until("the disk is too small", || rows(&broker, &["alarm", "list"])[1]["alarm"] == true);
    assert_eq!(old(&broker, &["set_disk_free_limit", "mem_relative", "x"]).code, 65);
    assert_eq!(ctl(&broker, &["alarm", "set", "--memory-watermark", "1.5"]).code, 65);
}

/// Codes and words that scripts look at, as RabbitMQ 3.10.8 answered them.
#[test]
fn the_old_words_have_the_old_codes() {
    let broker = start(Options::default());
    let cases: &[(&str, i32, &str)] = &[
        ("await_startup", 0, ""),
        ("version", 0, "3.10.8\n"),
        ("add_vhost v1", 0, "Adding vhost \"v1\" ...\n"),
        ("add_vhost v1", 0, "Adding vhost \"v1\" ...\n"),
        ("delete_vhost nope", 65, "Virtual host 'nope' does not exist\n"),
        ("add_user plain x", 0, "Adding user \"plain\" ...\n"),
        ("add_user plain x", 70, "Error:\nUser \"plain\" already exists\n"),
        ("delete_user nope", 67, "Error:\nUser \"nope\" does not exist\n"),
        ("set_user_tags nope a", 67, "Error:\nUser \"nope\" does not exist\n"),
        ("change_password nope x", 67, "Error:\nUser \"nope\" does not exist\n"),
        ("set_user_tags plain a b", 0, "Setting tags for user \"plain\" to [a, b] ...\n"),
        ("list_users -q", 0, "user\ttags\nguest\t[administrator]\nplain\t[a, b]\n"),
        ("list_vhosts --silent name tracing", 0, "/\tfalse\nv1\tfalse\n"),
        ("set_permissions -p nope plain a b c", 69, "Error:\nVhost 'nope' does not exist\n"),
        ("set_permissions -p v1 nope a b c", 67, "Error:\nUser \"nope\" does not exist\n"),
        ("set_permissions -p v1 plain [ b c", 69, "Error:\n"),
        ("set_permissions -p v1 plain a b c", 0, "Setting permissions for user \"plain\" in vhost \"v1\" ...\n"),
        ("list_permissions -p v1 -q", 0, "user\tconfigure\twrite\tread\nplain\ta\tb\tc\n"),
        ("list_permissions -p nope", 65, "Virtual host 'nope' does not exist\n"),
        ("list_user_permissions plain -q", 0, "vhost\tconfigure\twrite\tread\nv1\ta\tb\tc\n"),
        ("list_user_permissions nope", 69, "Error:\n{:no_such_user, \"nope\"}\n"),
        ("clear_permissions -p v1 plain", 0, "Clearing permissions for user \"plain\" in vhost \"v1\" ...\n"),
        ("delete_queue -p v1 nope", 64, "Error: Queue not found\n"),
        ("purge_queue -p v1 nope", 69, "Error:\nnot_found\n"),
        ("close_connection <x.1.2.3> bye", 0, "Closing connection <x.1.2.3>, reason: bye...\n"),
        ("close_all_connections bye", 0, "Closing all connections in vhost /, reason: bye...\nClosed 0 connections\n"),
        ("list_queues -p v1 bogus", 64, "Error: Info key(s) bogus are not supported"),
        ("list_queues --formatter json", 0, "[\n\n]\n"),
        ("list_connections", 0, "Listing connections ...\n"),
        ("list_exchanges -q type name --no-table-headers", 0, "direct\t\n"),
        ("set_policy p ^ {\"a\":", 69, "Error:\na policy's definition is not JSON"),
        ("set_policy -p nope p ^ {\"max-length\":1}", 65, "Virtual host 'nope' does not exist\n"),
        ("set_vhost_limits -p nope {\"max-queues\":1}", 65, "Virtual host 'nope' does not exist\n"),
        ("set_vhost_limits -p v1 {\"bogus\":1}", 69, "Error:\n'bogus' is no limit"),
        ("enable_feature_flag all", 0, "Enabling feature flag \"all\" ...\n"),
        ("set_cluster_name cc", 0, "Setting cluster name to cc ...\n"),
        ("bogus_command", 64, "Error: Command 'bogus_command' not found"),
        ("eval x.", 64, "Error: 'eval' cannot work here"),
        ("add_user", 64, "Error: not enough arguments"),
        ("add_user a b c d", 64, "Error: too many arguments"),
        ("import_definitions /nope.json", 65, "Error:\ncannot read /nope.json"),
        ("-n other@host -t 5 ping", 0, "Ping succeeded\n"),
    ];
    for (line, code, words) in cases {
        let ran = old(&broker, &line.split(' ').collect::<Vec<_>>());
        assert_eq!(ran.code, *code, "{line}: {ran:?}");
        assert!((if *code == 0 { &ran.out } else { &ran.err }).starts_with(words), "{line}: {ran:?}");
    }
    let gone = with_input(Command::new(program()).args(["status", "--socket", "/nowhere/admin.sock"]), "");
    assert_eq!(gone.code, 69);
    assert!(gone.err.starts_with("brokerctl: there is no broker at /nowhere/admin.sock."), "{gone:?}");
}

#[test]
fn the_program_is_rabbitmqctl_by_that_name() {
    let directory = TempDir::new().unwrap();
    let link = directory.path().join("rabbitmqctl");
    std::os::unix::fs::symlink(program(), &link).unwrap();
    assert_eq!(with_input(Command::new(&link).arg("version"), "").out, "3.10.8\n");
    assert!(with_input(Command::new(program()).arg("--help"), "").out.contains("brokerctl policy set bounded"));
}

const DEFINITIONS: &str = r#"{
    "users": [{"name": "ann", "password": "secret", "tags": "administrator"}],
    "vhosts": [{"name": "shop"}],
    "permissions": [{"user": "ann", "vhost": "shop", "configure": ".*", "write": ".*", "read": ".*"}],
    "exchanges": [{"name": "events", "vhost": "shop", "type": "topic", "durable": true, "auto_delete": false, "internal": false, "arguments": {}}],
    "queues": [{"name": "orders", "vhost": "shop", "durable": true, "auto_delete": false, "arguments": {"x-custom": {"list": [1, "two", false]}}}],
    "bindings": [{"source": "events", "vhost": "shop", "destination": "orders", "destination_type": "queue", "routing_key": "order.#", "arguments": {}}]
}"#;

fn exported(broker: &Brokerd) -> Value {
    serde_json::from_str(&ok(broker, &["definitions", "export"])).unwrap()
}

#[test]
fn definitions_at_boot_are_all_there_is() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("definitions.json");
    fs::write(&file, DEFINITIONS).unwrap();
    let mut broker = start(Options::default().conf(&format!("load_definitions = {}", file.display())));
    assert_eq!(rows(&broker, &["vhost", "list"]).len(), 1, "no default vhost");
    assert_eq!(rows(&broker, &["user", "list"]).len(), 1, "no default user");
    assert!(broker.log_tail().contains("default user 'guest' are NOT created"), "{}", broker.log_tail());
    assert!(broker.log_tail().contains("there is no user 'guest'"), "{}", broker.log_tail());
    block_on(async { connect(&broker, "ann", "secret", "shop").await.unwrap() });
    let before = exported(&broker);
    let given: Value = serde_json::from_str(DEFINITIONS).unwrap();
    for list in ["exchanges", "bindings", "permissions"] {
        assert_eq!(before[list], given[list], "{list}");
    }
    assert_eq!(before["queues"][0]["arguments"], given["queues"][0]["arguments"]);

    // Live: a queue that is otherwise stays, what is new comes; the log says both.
    let more = DEFINITIONS.replace(r#""name": "shop""#, r#""name": "shop"}, {"name": "second""#);
    let more = more.replace(
        r#""durable": true, "auto_delete": false, "arguments": {"x-custom""#,
        r#""durable": false, "auto_delete": false, "arguments": {"x-custom""#,
    );
    fs::write(&file, more).unwrap();
    kill_process(Pid::from_raw(broker.pid().cast_signed()).unwrap(), Signal::HUP).unwrap();
    until("the second vhost comes", || rows(&broker, &["vhost", "list"]).len() == 2);
    until("it is said", || broker.log_tail().contains("what is there stays: queue 'orders' in vhost 'shop'"));
    assert_eq!(rows(&broker, &["queue", "list"])[0]["durable"], true);

    // A file with a mistake does not let the node start, and says where.
    fs::write(&file, r#"{"vhosts": [{"name": "third"}], "queues": [{"name": "q", "vhost": "shop", "durable": 5}]}"#)
        .unwrap();
    let error = broker.restart().unwrap_err().to_string();
    assert!(error.contains("queues[0].durable: expected true or false, found a number"), "{error}");
    assert!(error.contains("The node does not start"), "{error}");
}

#[test]
fn definitions_are_imported_and_exported_live() {
    let broker = start(Options::default());
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("d.json");
    fs::write(&file, DEFINITIONS).unwrap();
    let text = ok(&broker, &["definitions", "import", file.to_str().unwrap()]);
    assert_eq!(text, "6 definitions, 6 changes\n");
    let again = directory.path().join("again.json");
    assert_eq!(old(&broker, &["export_definitions", again.to_str().unwrap()]).code, 0);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(fs::metadata(&again).unwrap().permissions().mode() & 0o777, 0o600, "it holds hashes");
    let second = start(Options::default());
    for list in ["queues", "exchanges", "bindings"] {
        assert_ne!(exported(&second)[list], exported(&broker)[list]);
    }
    ok(&second, &["definitions", "import", again.to_str().unwrap()]);
    for list in ["users", "vhosts", "permissions", "queues", "exchanges", "bindings"] {
        assert_eq!(exported(&second)[list], exported(&broker)[list], "{list}");
    }
    block_on(async { connect(&second, "ann", "secret", "shop").await.unwrap() });
    fs::write(&again, r#"{"queues": [{"name": "q", "durable": true, "auto_delete": false}]}"#).unwrap();
    let refused = ctl(&second, &["definitions", "import", again.to_str().unwrap()]);
    assert_eq!(refused.code, 65);
    assert!(refused.err.contains("queues[0] names no vhost"), "{refused:?}");
}

/// A file with lists in one order, and without what names the product or says the same thing twice.
fn content(mut document: Value) -> Value {
    for vhost in document["vhosts"].as_array_mut().unwrap() {
        let vhost = vhost.as_object_mut().unwrap();
        ["limits", "description", "tags"].iter().for_each(|key| drop(vhost.remove(*key)));
    }
    for exchange in document["exchanges"].as_array_mut().unwrap() {
        exchange.as_object_mut().unwrap().entry("internal").or_insert(false.into());
    }
    // A negative limit is none, which the catalog does not keep.
    let is_a_limit = |_: &String, limit: &mut Value| limit.as_i64().is_none_or(|limit| limit >= 0);
    for user in document["users"].as_array_mut().unwrap() {
        user["limits"].as_object_mut().unwrap().retain(is_a_limit);
    }
    for parameter in document["parameters"].as_array_mut().unwrap() {
        parameter["value"].as_object_mut().unwrap().retain(is_a_limit);
    }
    let fields = document.as_object_mut().unwrap();
    fields.retain(|key, _| !key.starts_with("product"));
    fields.values_mut().filter_map(Value::as_array_mut).for_each(|list| list.sort_by_key(Value::to_string));
    document
}

#[test]
fn a_file_of_rabbitmq_is_imported_and_exported_again() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORDED);
    let broker = start(Options::default().conf(&format!("load_definitions = {}", file.display())));
    let recorded = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(content(exported(&broker)), content(recorded));
    block_on(async {
        connect(&broker, "plain", "newpass", "v1").await.unwrap();
    });
}

#[test]
fn policies_parameters_and_limits() {
    let broker = start(Options::default());
    ok(&broker, &["policy", "set", "p", "^q", r#"{"max-length":5}"#, "--apply-to", "queues", "--priority", "-2"]);
    ok(&broker, &["policy", "set", "o", "", r#"{"max-length":3}"#, "--operator", "--apply-to", "queues"]);
    let row = json!({
        "vhost": "/", "name": "p", "pattern": "^q", "apply-to": "queues", "definition": r#"{"max-length":5}"#,
        "priority": -2, "operator": false,
    });
    assert_eq!(rows(&broker, &["policy", "list"]), [row]);
    let listed = old(&broker, &["list_operator_policies", "-q"]).out;
    assert_eq!(listed, "vhost\tname\tpattern\tapply-to\tdefinition\tpriority\n/\to\t\tqueues\t{\"max-length\":3}\t0\n");
    // Shown where they take effect: a queue that was there before, and one that comes after.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let connection = connect(&broker, "guest", "guest", "/").await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare("q1".into(), durable, FieldTable::default()).await.unwrap();
    });
    let said =
        |row: &Value| ["policy", "operator_policy", "effective_policy_definition"].map(|column| row[column].clone());
    let queue = rows(&broker, &["queue", "list"]);
    assert_eq!(said(&queue[0]), [json!("p"), json!("o"), json!(r#"{"max-length":3}"#)]);
    ok(&broker, &["policy", "set", "p2", "^q1", r#"{"message-ttl":7,"max-length":1}"#, "--priority", "1"]);
    let queue = rows(&broker, &["queue", "list"]);
    assert_eq!(said(&queue[0]), [json!("p2"), json!("o"), json!(r#"{"max-length":1,"message-ttl":7}"#)]);
    ok(&broker, &["policy", "delete", "p2"]);
    assert_eq!(ctl(&broker, &["policy", "delete", "none"]).code, 65);
    assert_eq!(old(&broker, &["clear_policy", "none"]).code, 69);
    assert_eq!(old(&broker, &["clear_policy", "p"]).code, 0);

    ok(&broker, &["vhost", "limits", "set", "/", r#"{"max-queues":5}"#]);
    assert_eq!(old(&broker, &["-q", "list_vhost_limits"]).out, "{\"max-queues\":5}\n");
    ok(&broker, &["vhost", "limits", "clear", "/"]);
    assert_eq!(old(&broker, &["set_user_limits", "guest", r#"{"max-channels":5}"#]).code, 0);
    assert_eq!(rows(&broker, &["user", "limits", "list"])[0]["user"], "guest");
    assert_eq!(old(&broker, &["clear_user_limits", "guest", "all"]).code, 0);
    assert_eq!(old(&broker, &["set_user_limits", "nope", r#"{"max-channels":5}"#]).code, 69);

    ok(&broker, &["param", "set", "shape", r#"{"a":1}"#, "--global"]);
    assert_eq!(old(&broker, &["-q", "list_global_parameters"]).out, "name\tvalue\nshape\t{\"a\":1}\n");
    ok(&broker, &["param", "delete", "shape", "--global"]);
    assert_eq!(old(&broker, &["clear_global_parameter", "shape"]).code, 69);

    assert_eq!(old(&broker, &["set_topic_permissions", "guest", "amq.topic", "^a", "^b"]).code, 0);
    let row = json!({"vhost": "/", "user": "guest", "exchange": "amq.topic", "write": "^a", "read": "^b"});
    assert_eq!(rows(&broker, &["perm", "list", "--topic"]), [row]);
    ok(&broker, &["perm", "clear", "guest", "--topic", "amq.topic"]);

    assert_eq!(old(&broker, &["trace_on"]).code, 0);
    assert!(old(&broker, &["-q", "list_vhosts", "name", "tracing"]).out.contains("/\ttrue"));
    ok(&broker, &["vhost", "update", "/", "--trace", "off", "--description", "new"]);
    assert_eq!(rows(&broker, &["vhost", "list"])[0]["description"], "new");
}
