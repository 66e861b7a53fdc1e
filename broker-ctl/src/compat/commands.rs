//! Commands of the old tool.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proto::admin::v1::alarm_limits::{Disk, Memory};
use proto::admin::v1::{AlarmLimits, CloseConnectionsRequest, DeleteQueueRequest, Existence, PutUserRequest, Reason};
use proto::meta::command::Kind;
use proto::meta::set_limits::Of;
use proto::meta::{self, SetLimits, Tags};

use super::lists;
use super::words::Words;
use crate::args::Where;
use crate::client::{Client, block_on};
use crate::exit::{Exit, Failure};
use crate::run::{print, read_document, read_password, size, status_json, status_text, write_private};
use crate::target::Target;
use crate::{policy, rows};

/// The version that is spoken.
pub(super) const VERSION: &str = "3.10.8";
/// Without --timeout.
const TIMEOUT_S: u64 = 60;
/// The same for await_startup.
const STARTUP_TIMEOUT_S: u64 = 300;
/// Variables that say where the broker is.
const PLACES: [&str; 4] = ["BROKERCTL_SOCKET", "BROKERCTL_DATA_DIR", "BROKERCTL_HOST", "BROKERCTL_CONTEXT"];
/// Between two looks for a broker that starts.
const STARTUP_POLL: Duration = Duration::from_millis(100);

/// Every command, for help.
const COMMANDS: &str = "add_user delete_user change_password clear_password set_user_tags list_users add_vhost delete_vhost list_vhosts trace_on trace_off \
set_permissions clear_permissions list_permissions list_user_permissions set_topic_permissions clear_topic_permissions list_topic_permissions \
set_policy clear_policy list_policies set_operator_policy clear_operator_policy list_operator_policies \
set_vhost_limits clear_vhost_limits list_vhost_limits set_user_limits clear_user_limits list_user_limits \
set_parameter clear_parameter list_parameters set_global_parameter clear_global_parameter list_global_parameters \
list_queues list_exchanges list_bindings list_connections list_channels list_consumers close_connection close_all_connections \
delete_queue purge_queue set_vm_memory_high_watermark set_disk_free_limit set_cluster_name export_definitions import_definitions \
await_startup status ping version enable_feature_flag \
cluster_status join_cluster forget_cluster_node reset force_boot await_online_nodes stop_app start_app \
check_running check_alarms check_local_alarms check_port_listener check_protocol_listener";

type Result<T> = std::result::Result<T, Failure>;

/// Runs a command.
pub fn run(words: &Words) -> Result<()> {
    match words.command.as_str() {
        "version" => return print(&format!("{VERSION}\n")),
        "help" => return print(&help()),
        "eval" | "eval_file" | "exec" | "remote_shell" => {
            return Err(Failure::usage(format!(
                "'{}' cannot work here: there is no Erlang virtual machine. Use brokerctl",
                words.command
            )));
        }
        // All features are always there.
        "enable_feature_flag" => {
            let [name] = words.exactly("enable_feature_flag FLAG")?;
            return say(words, &format!("Enabling feature flag \"{name}\" ..."));
        }
        command if !COMMANDS.split_whitespace().any(|known| known == command) => {
            return Err(Failure::usage(format!(
                "Command '{command}' not found. `rabbitmqctl help` lists what is spoken here; `brokerctl --help` has more"
            )));
        }
        _ => {}
    }
    let target = target_of(words)?;
    if words.command == "await_startup" {
        return await_startup(words, &target);
    }
    if let Some(done) = super::cluster::run(words, &target).or_else(|| super::checks::run(words, &target)) {
        return done;
    }
    let timeout = Duration::from_secs(words.timeout.unwrap_or(TIMEOUT_S));
    let command = Command::of(words)?;
    say(words, &command.saying)?;
    let text = block_on(timeout, async {
        let mut client = Client::connect(&target).await?;
        match command.work {
            Work::List => lists::list(&mut client, words).await.map(Option::unwrap_or_default),
            work => carry_out(&mut client, words, work).await,
        }
    })
    .map_err(|failure| as_rabbitmq(words, failure))?;
    print(&text)
}

/// The failure for a vhost that does not exist.
pub fn no_vhost(name: &str) -> Failure {
    let text = format!("Virtual host '{name}' does not exist");
    Failure { exit: Exit::Data, text, reason: Some(Reason::NoSuchVhost) }
}

/// What a command comes down to.
enum Work {
    List,
    Change(Kind),
    /// A change that must find something.
    Remove(Kind),
    User(PutUserRequest),
    DeleteQueue(DeleteQueueRequest),
    Purge(String),
    Close(CloseConnectionsRequest, bool),
    Alarm(AlarmLimits),
    Export(String),
    Import(Vec<u8>),
    Status,
    Ping,
}

/// A command and what is said before it is carried out.
struct Command {
    saying: String,
    work: Work,
}

impl Command {
    fn of(words: &Words) -> Result<Command> {
        let vhost = words.vhost();
        let (saying, work) = match words.command.as_str() {
            "add_user" | "delete_user" | "change_password" | "clear_password" | "set_user_tags" => return user(words),
            "add_vhost" => {
                let [name] = words.exactly("add_vhost VHOST")?;
                let tags = words.tags.as_deref().unwrap_or_default();
                let create = meta::CreateVhost {
                    name: name.into(),
                    description: words.description.clone().unwrap_or_default(),
                    tags: tags.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect(),
                    default_queue_type: words.default_queue_type.clone().unwrap_or_default(),
                    vhosts_max: 0,
                };
                (format!("Adding vhost \"{name}\" ..."), Work::Change(Kind::CreateVhost(create)))
            }
            "delete_vhost" => {
                let [name] = words.exactly("delete_vhost VHOST")?;
                let delete = Kind::DeleteVhost(meta::DeleteVhost { name: name.into() });
                (format!("Deleting vhost \"{name}\" ..."), Work::Change(delete))
            }
            "trace_on" | "trace_off" => {
                words.exactly::<0>("trace_on [-p VHOST]")?;
                let on = words.command == "trace_on";
                let update =
                    meta::UpdateVhost { name: vhost.clone(), tracing: Some(on), ..meta::UpdateVhost::default() };
                let verb = if on { "Starting" } else { "Stopping" };
                (format!("{verb} tracing for vhost \"{vhost}\" ..."), Work::Change(Kind::UpdateVhost(update)))
            }
            "set_permissions" | "clear_permissions" | "set_topic_permissions" | "clear_topic_permissions" => {
                return permissions(words);
            }
            "set_policy" | "set_operator_policy" | "clear_policy" | "clear_operator_policy" => return policies(words),
            "set_vhost_limits" | "clear_vhost_limits" | "set_user_limits" | "clear_user_limits" => {
                return limits(words);
            }
            "set_parameter" | "clear_parameter" | "set_global_parameter" | "clear_global_parameter" => {
                return parameters(words);
            }
            "set_cluster_name" => {
                let [name] = words.exactly("set_cluster_name NAME")?;
                let set = Kind::SetClusterName(meta::SetClusterName { name: name.into() });
                (format!("Setting cluster name to {name} ..."), Work::Change(set))
            }
            "delete_queue" => {
                let [name] = words.exactly("delete_queue QUEUE [--if-empty] [--if-unused]")?;
                let (if_unused, if_empty) = (words.if_unused, words.if_empty);
                let saying = format!("Deleting queue '{name}' on vhost '{vhost}' ...");
                (saying, Work::DeleteQueue(DeleteQueueRequest { vhost, name: name.into(), if_unused, if_empty }))
            }
            "purge_queue" => {
                let [name] = words.exactly("purge_queue QUEUE")?;
                (format!("Purging queue '{name}' in vhost '{vhost}' ..."), Work::Purge(name.into()))
            }
            "close_connection" => {
                let [pid, reason] = words.exactly("close_connection PID EXPLANATION")?;
                // Of a process that is none, RabbitMQ says nothing either.
                let number = Some(rows::number_of_pid(pid).unwrap_or_default());
                let request =
                    CloseConnectionsRequest { number, reason: reason.into(), ..CloseConnectionsRequest::default() };
                (format!("Closing connection {pid}, reason: {reason}..."), Work::Close(request, false))
            }
            "close_all_connections" => {
                let [reason] = words.exactly("close_all_connections [-p VHOST | --global] [--limit N] EXPLANATION")?;
                let wanted = (!words.global).then_some(vhost.clone());
                let request = CloseConnectionsRequest {
                    vhost: wanted,
                    reason: reason.into(),
                    limit: words.limit,
                    ..CloseConnectionsRequest::default()
                };
                let place = if words.global { "all vhosts".into() } else { format!("vhost {vhost}") };
                (format!("Closing all connections in {place}, reason: {reason}..."), Work::Close(request, true))
            }
            "set_vm_memory_high_watermark" | "set_disk_free_limit" => return alarm_limits(words),
            "export_definitions" => {
                let [file] = words.exactly("export_definitions FILE")?;
                let saying = if file == "-" {
                    String::new()
                } else {
                    format!("Exporting definitions in JSON to a file at \"{file}\" ...")
                };
                (saying, Work::Export(file.into()))
            }
            "import_definitions" => {
                let file = words.arguments.first().map_or("-", String::as_str);
                let saying = format!("Importing definitions in JSON from a file at \"{file}\" ...");
                (saying, Work::Import(read_document(Path::new(file))?))
            }
            "status" => (String::new(), Work::Status),
            "ping" => (String::new(), Work::Ping),
            _ => (String::new(), Work::List),
        };
        Ok(Command { saying, work })
    }
}

fn user(words: &Words) -> Result<Command> {
    let request = |name: &str, existence: Existence| PutUserRequest {
        name: name.into(),
        existence: existence.into(),
        ..PutUserRequest::default()
    };
    // The old syntax has the password on the command line; without it, it is read.
    let password = |usage: &str| -> Result<(String, String)> {
        match words.arguments.as_slice() {
            [name] => Ok((name.clone(), read_password(None)?)),
            _ => words.exactly::<2>(usage).map(|[name, password]| (name.into(), password.into())),
        }
    };
    Ok(match words.command.as_str() {
        "add_user" => {
            let (name, password) = password("add_user USER [PASSWORD]")?;
            let saying = format!("Adding user \"{name}\" ...");
            let request = PutUserRequest { password: Some(password), ..request(&name, Existence::MustBeNew) };
            Command { saying, work: Work::User(request) }
        }
        "change_password" => {
            let (name, password) = password("change_password USER [PASSWORD]")?;
            let saying = format!("Changing password for user \"{name}\" ...");
            let request = PutUserRequest { password: Some(password), ..request(&name, Existence::MustExist) };
            Command { saying, work: Work::User(request) }
        }
        "clear_password" => {
            let [name] = words.exactly("clear_password USER")?;
            let request = PutUserRequest { clear_password: true, ..request(name, Existence::MustExist) };
            Command { saying: format!("Clearing password for user \"{name}\" ..."), work: Work::User(request) }
        }
        "set_user_tags" => {
            let (name, tags) = words.arguments.split_first().ok_or_else(|| {
                Failure::usage("not enough arguments. Usage: rabbitmqctl set_user_tags USER [TAG ...]")
            })?;
            let saying = format!("Setting tags for user \"{name}\" to [{}] ...", tags.join(", "));
            let request =
                PutUserRequest { tags: Some(Tags { tags: tags.to_vec() }), ..request(name, Existence::MustExist) };
            Command { saying, work: Work::User(request) }
        }
        _ => {
            let [name] = words.exactly("delete_user USER")?;
            let delete = Kind::DeleteUser(meta::DeleteUser { name: name.into() });
            Command { saying: format!("Deleting user \"{name}\" ..."), work: Work::Change(delete) }
        }
    })
}

fn permissions(words: &Words) -> Result<Command> {
    let vhost = words.vhost();
    let (saying, kind) = match words.command.as_str() {
        "set_permissions" => {
            let [user, configure, write, read] =
                words.exactly("set_permissions [-p VHOST] USER CONFIGURE WRITE READ")?;
            let (user, configure, write, read) = (user.into(), configure.into(), write.into(), read.into());
            let saying = format!("Setting permissions for user \"{user}\" in vhost \"{vhost}\" ...");
            (saying, Kind::SetPermissions(meta::SetPermissions { user, vhost, configure, write, read }))
        }
        "clear_permissions" => {
            let [user] = words.exactly("clear_permissions [-p VHOST] USER")?;
            let saying = format!("Clearing permissions for user \"{user}\" in vhost \"{vhost}\" ...");
            (saying, Kind::ClearPermissions(meta::ClearPermissions { user: user.into(), vhost }))
        }
        "set_topic_permissions" => {
            let [user, exchange, write, read] =
                words.exactly("set_topic_permissions [-p VHOST] USER EXCHANGE WRITE READ")?;
            let (user, exchange, write, read) = (user.into(), exchange.into(), write.into(), read.into());
            let saying =
                format!("Setting topic permissions on \"{exchange}\" for user \"{user}\" in vhost \"{vhost}\" ...");
            (saying, Kind::SetTopicPermissions(meta::SetTopicPermissions { user, vhost, exchange, write, read }))
        }
        _ => {
            let (user, exchange) = match words.arguments.as_slice() {
                [user, exchange] => (user.clone(), Some(exchange.clone())),
                _ => (words.exactly::<1>("clear_topic_permissions [-p VHOST] USER [EXCHANGE]")?[0].into(), None),
            };
            let saying = format!("Clearing topic permissions for user \"{user}\" in vhost \"{vhost}\" ...");
            (saying, Kind::ClearTopicPermissions(meta::ClearTopicPermissions { user, vhost, exchange }))
        }
    };
    Ok(Command { saying, work: Work::Change(kind) })
}

fn policies(words: &Words) -> Result<Command> {
    let vhost = words.vhost();
    let operator = words.command.contains("operator");
    let what = if operator { "operator policy override" } else { "policy" };
    if words.command.starts_with("clear") {
        let [name] = words.exactly("clear_policy [-p VHOST] NAME")?;
        let saying = format!("Clearing {what} \"{name}\" on vhost \"{vhost}\" ...");
        let clear = Kind::ClearPolicy(meta::ClearPolicy { vhost, name: name.into(), operator });
        return Ok(Command { saying, work: Work::Remove(clear) });
    }
    let [name, pattern, json] =
        words.exactly("set_policy [-p VHOST] [--priority N] [--apply-to WHAT] NAME PATTERN DEFINITION")?;
    let priority = words.priority.unwrap_or_default();
    let definition = policy::definition(json).map_err(refused)?;
    let saying = format!(
        "Setting {what} \"{name}\" for pattern \"{pattern}\" to \"{json}\" with priority \"{priority}\" for vhost \"{vhost}\" ..."
    );
    let set = meta::SetPolicy {
        vhost,
        name: name.into(),
        operator,
        pattern: pattern.into(),
        apply_to: words.apply_to.clone().unwrap_or_else(|| "all".into()),
        priority,
        definition,
    };
    Ok(Command { saying, work: Work::Change(Kind::SetPolicy(set)) })
}

fn limits(words: &Words) -> Result<Command> {
    let is_set = words.command.starts_with("set");
    let (of, what, json) = if words.command.ends_with("vhost_limits") {
        let vhost = words.vhost();
        let json = if is_set { words.exactly::<1>("set_vhost_limits [-p VHOST] DEFINITION")?[0] } else { "{}" };
        if !is_set {
            words.exactly::<0>("clear_vhost_limits [-p VHOST]")?;
        }
        (Of::Vhost(vhost.clone()), format!("vhost \"{vhost}\""), json)
    } else if is_set {
        let [user, json] = words.exactly("set_user_limits USER DEFINITION")?;
        (Of::User(user.into()), format!("user \"{user}\""), json)
    } else {
        let [user, which] = words.exactly("clear_user_limits USER all")?;
        if which != "all" {
            return Err(Failure::usage(
                "single limits cannot be cleared: set those that are to stay with set_user_limits, or clear 'all'",
            ));
        }
        (Of::User(user.into()), format!("user \"{user}\""), "{}")
    };
    let limits = SetLimits { of: Some(of), ..policy::limits(json).map_err(refused)? };
    let saying = if is_set {
        format!("Setting limits to \"{json}\" for {what} ...")
    } else {
        format!("Clearing limits for {what} ...")
    };
    Ok(Command { saying, work: Work::Change(Kind::SetLimits(limits)) })
}

fn parameters(words: &Words) -> Result<Command> {
    let (set, clear) = (words.command.starts_with("set"), words.command.starts_with("clear"));
    let global = words.command.contains("global");
    let (vhost, component, name, value) = match (global, set) {
        (true, true) => {
            let [name, value] = words.exactly("set_global_parameter NAME VALUE")?;
            (String::new(), "", name, value)
        }
        (true, false) => (String::new(), "", words.exactly::<1>("clear_global_parameter NAME")?[0], ""),
        (false, true) => {
            let [component, name, value] = words.exactly("set_parameter [-p VHOST] COMPONENT NAME VALUE")?;
            (words.vhost(), component, name, value)
        }
        (false, false) => {
            let [component, name] = words.exactly("clear_parameter [-p VHOST] COMPONENT NAME")?;
            (words.vhost(), component, name, "")
        }
    };
    let kind = if global {
        "global runtime parameter".to_owned()
    } else {
        format!("runtime parameter of component \"{component}\"")
    };
    let (component, name) = (component.to_owned(), name.to_owned());
    if clear {
        let saying = format!("Clearing {kind} \"{name}\" ...");
        let clear = Kind::ClearParameter(meta::ClearParameter { vhost, component, name });
        return Ok(Command { saying, work: Work::Remove(clear) });
    }
    let saying = format!("Setting {kind} \"{name}\" to \"{value}\" ...");
    let value = policy::json_value(value).map_err(refused)?;
    Ok(Command { saying, work: Work::Change(Kind::SetParameter(meta::SetParameter { vhost, component, name, value })) })
}

fn alarm_limits(words: &Words) -> Result<Command> {
    let bad = |text: &str| Failure::new(Exit::Data, format!("'{text}' is no number"));
    let is_memory = words.command == "set_vm_memory_high_watermark";
    let arguments: Vec<&str> = words.arguments.iter().map(String::as_str).collect();
    let limits = match (is_memory, arguments.as_slice()) {
        (true, [share]) => {
            AlarmLimits { memory: Some(Memory::MemoryRelative(share.parse().map_err(|_| bad(share))?)), disk: None }
        }
        (true, ["absolute", bytes]) => AlarmLimits { memory: Some(Memory::MemoryBytes(size(bytes)?)), disk: None },
        (false, [bytes]) => AlarmLimits { memory: None, disk: Some(Disk::DiskFreeBytes(size(bytes)?)) },
        (false, ["mem_relative", factor]) => AlarmLimits {
            memory: None,
            disk: Some(Disk::DiskRelativeToMemory(factor.parse().map_err(|_| bad(factor))?)),
        },
        (true, _) => {
            return Err(Failure::usage("usage: rabbitmqctl set_vm_memory_high_watermark FRACTION | absolute SIZE"));
        }
        (false, _) => return Err(Failure::usage("usage: rabbitmqctl set_disk_free_limit SIZE | mem_relative FACTOR")),
    };
    let what = if is_memory { "memory threshold" } else { "disk free limit" };
    Ok(Command { saying: format!("Setting {what} to {} ...", arguments.join(" ")), work: Work::Alarm(limits) })
}

async fn carry_out(client: &mut Client, words: &Words, work: Work) -> Result<String> {
    Ok(match work {
        Work::Change(kind) => client.change(kind).await.map(|_| String::new())?,
        Work::Remove(kind) => {
            if !client.change(kind).await? {
                return Err(Failure::new(Exit::Unavailable, "Parameter does not exist"));
            }
            String::new()
        }
        Work::User(request) => client.put_user(request).await.map(|_| String::new())?,
        Work::DeleteQueue(request) => {
            format!("Queue was successfully deleted with {} ready messages\n", client.delete_queue(request).await?)
        }
        Work::Purge(name) => client.purge(&words.vhost(), &name).await.map(|_| String::new())?,
        Work::Close(request, counts) => {
            let closed = client.close_connections(request).await?;
            if counts { format!("Closed {closed} connections\n") } else { String::new() }
        }
        Work::Alarm(limits) => client.set_alarm_limits(limits).await.map(|_| String::new())?,
        Work::Export(file) => {
            let document = client.export_definitions().await?;
            if file == "-" {
                return Ok(format!("{}\n", String::from_utf8_lossy(&document)));
            }
            write_private(Path::new(&file), &document)?;
            String::new()
        }
        Work::Import(document) => client.import_definitions(&document).await.map(|_| String::new())?,
        Work::Status => {
            let status = client.status().await?;
            if words.json { format!("{}\n", status_json(&status)) } else { status_text(&status) }
        }
        Work::Ping => {
            client.status().await?;
            "Ping succeeded\n".into()
        }
        Work::List => String::new(),
    })
}

/// The codes and texts that scripts look at.
fn as_rabbitmq(words: &Words, failure: Failure) -> Failure {
    let Failure { exit, text, reason } = failure;
    let command = words.command.as_str();
    let quoted = |text: &str| text.replace('\'', "\"");
    let (exit, text) = match (reason, command) {
        (Some(Reason::NoSuchVhost), "set_permissions" | "clear_permissions") => (Exit::Unavailable, capital(&text)),
        (Some(Reason::NoSuchVhost), _) => (Exit::Data, text.replacen("vhost", "Virtual host", 1)),
        (Some(Reason::NoSuchUser), "set_user_limits" | "clear_user_limits") => {
            (Exit::Unavailable, capital(&quoted(&text)))
        }
        (Some(Reason::NoSuchUser), _) => (Exit::NoUser, capital(&quoted(&text))),
        (Some(Reason::Exists), "add_user") => {
            (Exit::Software, capital(&quoted(&text)).replace("exists", "already exists"))
        }
        (Some(Reason::NotFound), "delete_queue") => (Exit::Usage, "Queue not found".into()),
        (Some(Reason::NotFound), "purge_queue") => (Exit::Unavailable, "not_found".into()),
        (Some(_), _) => (Exit::Unavailable, text),
        (None, _) => (exit, text),
    };
    Failure { exit, text, reason }
}

/// What the tool finds wrong itself, RabbitMQ's broker does.
fn refused(failure: Failure) -> Failure {
    Failure { exit: Exit::Unavailable, ..failure }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

pub(super) fn say(words: &Words, text: &str) -> Result<()> {
    // Where the output is a document, nothing else may stand in it.
    if words.quiet || words.json || text.is_empty() { Ok(()) } else { print(&format!("{text}\n")) }
}

/// A context that was selected is none of old scripts': they mean this machine unless something else is said.
fn target_of(words: &Words) -> Result<Target> {
    let Words { socket, data_dir, context, .. } = words.clone();
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let mut said = Where { socket, data_dir, context, ..Where::default() };
    let is_said = said.socket.is_some() || said.data_dir.is_some() || said.context.is_some();
    if !is_said && !PLACES.iter().any(|name| variable(name).is_some()) {
        said.data_dir = variable("RABBITMQ_MNESIA_DIR").map(PathBuf::from);
    }
    Target::of_old_words(&said)
}

fn await_startup(words: &Words, target: &Target) -> Result<()> {
    let patience = Duration::from_secs(words.timeout.unwrap_or(STARTUP_TIMEOUT_S));
    let give_up = Instant::now() + patience;
    block_on(patience + STARTUP_POLL, async {
        loop {
            let answer = match Client::connect(target).await {
                Ok(mut client) => client.status().await.map(drop),
                Err(failure) => Err(failure),
            };
            match answer {
                Err(failure) if failure.exit == Exit::Unavailable && Instant::now() < give_up => {
                    tokio::time::sleep(STARTUP_POLL).await;
                }
                answer => return answer,
            }
        }
    })
}

fn help() -> String {
    let commands: String = COMMANDS.split_whitespace().map(|command| format!("  {command}\n")).collect();
    format!(
        "Usage: rabbitmqctl [-q] [-s] [-p VHOST] [--timeout SECONDS] [--formatter table|json] COMMAND [ARGUMENT ...]\n\
         The broker is found at --socket or $BROKERCTL_SOCKET, in --data-dir, $BROKERCTL_DATA_DIR or $RABBITMQ_MNESIA_DIR, or, elsewhere, as the\n\
         --context or $BROKERCTL_CONTEXT that `brokerctl context add` has made; else in ./data.\n\
         Commands of RabbitMQ 3.10 that are spoken:\n{commands}`brokerctl --help` shows the broker's own command line.\n"
    )
}
