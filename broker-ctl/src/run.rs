//! Nouns and verbs, carried out.

use std::fs::{File, Permissions};
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use proto::admin::v1::alarm_limits::{Disk, Memory};
use proto::admin::v1::{
    AlarmLimits, AlarmLimitsInEffect, CatalogKind, CloseConnectionsRequest, DeleteQueueRequest, Existence,
    PutUserRequest, Status, catalog_item,
};
use proto::meta::command::Kind;
use proto::meta::set_limits::Of;
use proto::meta::{self, SetLimits, Tags};
use serde_json::json;

use crate::args::{
    Alarm, Cli, Connection, Definitions, Form, Global, Limits, ListOnly, Node, Noun, Param, Password, Perm, Policy,
    Queue, Switch, User, Vhost,
};
use crate::client::{Client, block_on};
use crate::exit::{Exit, Failure};
use crate::table::Table;
use crate::target::{Asking, Target};
use crate::{check, cluster, compat, context, policy, rows};

/// A definitions document may be this long, in octets; the broker takes no more.
pub const DOCUMENT_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// A password file may be this long, in octets.
const PASSWORD_MAX_BYTES: u64 = 4096;
/// What is watched is watched until somebody ends it.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 86_400);
/// The vhost of those who name none.
const DEFAULT_VHOST: &str = "/";

type Result<T> = std::result::Result<T, Failure>;

/// Runs the program with its arguments, the program's name first.
pub fn main(arguments: &[String]) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that went away, as in `brokerctl --help | head -1`, is no failure.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS };
        }
    };
    if let Noun::Compat { words } = &cli.noun {
        return compat::from_words(words);
    }
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // There is nobody left to tell if standard error is gone.
            let _ = writeln!(io::stderr(), "brokerctl: {failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.noun {
        Noun::Cluster(verb) => return cluster::run(verb, &cli.global),
        Noun::Context(verb) => return context::run(verb, &cli.global),
        Noun::Completion { shell } => return complete(*shell),
        _ => {}
    }
    // Read before the broker is asked, so that a terminal is not waited for with a clock running.
    let asking = if let Noun::Check(check) = &cli.noun { check.asking() } else { Asking::User };
    let target = Target::of(&cli.global.place, asking)?;
    let input = Input::of(&cli.noun)?;
    let mut timeout = Duration::from_secs(cli.global.timeout);
    if let Noun::Check(check) = &cli.noun
        && check.health().is_some_and(|(.., watched)| watched)
    {
        timeout = FOREVER;
    }
    let text = block_on(timeout, async {
        let mut session = Session { client: Client::connect(&target).await?, global: &cli.global, input };
        session.carry_out(&cli.noun).await
    })?;
    print(&text)
}

/// Writes the script by which a shell completes command lines.
fn complete(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "brokerctl", &mut script);
    print(&String::from_utf8_lossy(&script))
}

/// A table in the form that was asked for, with these columns unless others were.
pub fn shown(table: Table, global: &Global, defaults: &[&str]) -> Result<String> {
    let asked: Vec<&str> = global.columns.iter().map(String::as_str).collect();
    match (global.output, asked.is_empty()) {
        (Form::Json, true) => Ok(table.json()),
        (Form::Json, false) => Ok(table.select(&asked)?.json()),
        (Form::Table, true) => Ok(table.select(defaults)?.aligned()),
        (Form::Table, false) => Ok(table.select(&asked)?.aligned()),
    }
}

/// Writes to standard output.
pub fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Software, format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Reads a definitions document from a file, or from standard input as `-`.
pub fn read_document(path: &Path) -> Result<Vec<u8>> {
    let document = read_bounded(path, DOCUMENT_MAX_BYTES)
        .map_err(|error| Failure::new(Exit::Data, format!("cannot read {}: {error}", path.display())))?;
    if document.len() as u64 > DOCUMENT_MAX_BYTES {
        let text = format!("{} is longer than {DOCUMENT_MAX_BYTES} octets; split it", path.display());
        return Err(Failure::new(Exit::Data, text));
    }
    Ok(document)
}

/// Writes a file that only its owner may read: definitions hold password hashes.
pub fn write_private(path: &Path, octets: &[u8]) -> Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let failed = |error| Failure::new(Exit::Data, format!("cannot write {}: {error}", path.display()));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path).map_err(failed)?;
    // The mode counts for a file that is new. One that was there keeps its own, unless it is told.
    if file.metadata().map_err(failed)?.is_file() {
        file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    }
    file.write_all(octets).map_err(failed)
}

/// A password from a file, or from standard input without one. The line break at its end is not part of it.
pub fn read_password(file: Option<&Path>) -> Result<String> {
    let path = file.unwrap_or(Path::new("-"));
    if file.is_none() && io::stdin().is_terminal() {
        return Err(Failure::usage(
            "the password is read from standard input, which is a terminal and would show it. Use `brokerctl ... < FILE` or --password-file FILE",
        ));
    }
    let octets = read_bounded(path, PASSWORD_MAX_BYTES).map_err(|error| {
        Failure::new(Exit::Data, format!("cannot read the password from {}: {error}", path.display()))
    })?;
    let text = String::from_utf8(octets).map_err(|_| Failure::new(Exit::Data, "the password is not UTF-8"))?;
    let password = text.strip_suffix('\n').map_or(&*text, |line| line.strip_suffix('\r').unwrap_or(line));
    if password.is_empty() {
        return Err(Failure::new(Exit::Data, "the password is empty"));
    }
    Ok(password.to_owned())
}

fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut octets = Vec::new();
    if path == Path::new("-") {
        io::stdin().lock().take(most + 1).read_to_end(&mut octets)?;
    } else {
        File::open(path)?.take(most + 1).read_to_end(&mut octets)?;
    }
    Ok(octets)
}

/// A size as operators write it: 2GB, 512MiB, 1000.
pub fn size(text: &str) -> Result<u64> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    // As RabbitMQ reads them: the short and the -iB ones count by 1024.
    let factor: Option<u64> = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => Some(1),
        "k" | "kib" => Some(1 << 10),
        "m" | "mib" => Some(1 << 20),
        "g" | "gib" => Some(1 << 30),
        "kb" => Some(1_000),
        "mb" => Some(1_000_000),
        "gb" => Some(1_000_000_000),
        _ => None,
    };
    let bytes = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    bytes.ok_or_else(|| Failure::usage(format!("'{text}' is no size; sizes are 1000, 512MiB, 2GB")))
}

/// What a command needs besides its words.
enum Input {
    Nothing,
    Document(Vec<u8>),
    Password(Option<String>),
}

impl Input {
    fn of(noun: &Noun) -> Result<Input> {
        let password = |source: &Password| {
            if source.no_password { Ok(None) } else { read_password(source.password_file.as_deref()).map(Some) }
        };
        Ok(match noun {
            Noun::Definitions(Definitions::Import { file }) => Input::Document(read_document(file)?),
            Noun::User(User::Create { password: source, .. } | User::Passwd { password: source, .. }) => {
                Input::Password(password(source)?)
            }
            _ => Input::Nothing,
        })
    }
}

/// A connected run. Commands answer with what is to be printed.
struct Session<'a> {
    client: Client,
    global: &'a Global,
    input: Input,
}

impl Session<'_> {
    async fn carry_out(&mut self, noun: &Noun) -> Result<String> {
        match noun {
            Noun::Status => self.status().await,
            Noun::Definitions(verb) => self.definitions(verb).await,
            Noun::Policy(verb) => self.policy(verb).await,
            Noun::Vhost(verb) => self.vhost(verb).await,
            Noun::User(verb) => self.user(verb).await,
            Noun::Perm(verb) => self.perm(verb).await,
            Noun::Param(verb) => self.param(verb).await,
            Noun::Queue(verb) => self.queue(verb).await,
            Noun::Exchange(ListOnly::List) => {
                let defaults = ["vhost", "name", "type", "durable", "auto_delete", "internal"];
                self.list(CatalogKind::Exchanges, rows::EXCHANGES, &defaults, |_| true).await
            }
            Noun::Binding(ListOnly::List) => {
                let defaults = ["vhost", "source_name", "destination_name", "destination_kind", "routing_key"];
                self.list(CatalogKind::Bindings, rows::BINDINGS, &defaults, |_| true).await
            }
            Noun::Connection(verb) => self.connection(verb).await,
            Noun::Channel(ListOnly::List) => {
                let channels = self.client.channels(self.global.vhost.as_deref()).await?;
                let defaults = ["name", "user", "vhost", "consumer_count", "messages_unacknowledged", "prefetch_count"];
                self.table(rows::channels(&channels), &defaults)
            }
            Noun::Consumer(ListOnly::List) => {
                let consumers = self.client.consumers(self.global.vhost.as_deref()).await?;
                let defaults = ["vhost", "queue_name", "consumer_tag", "ack_required", "user", "channel_pid"];
                self.table(rows::consumers(&consumers), &defaults)
            }
            Noun::Alarm(verb) => self.alarm(verb).await,
            Noun::Node(verb) => self.node(verb).await,
            Noun::Check(check) => check::run(&mut self.client, check, self.global.output).await,
            Noun::Cluster(_) | Noun::Context(_) | Noun::Completion { .. } => Ok(String::new()),
            Noun::Compat { .. } => Err(Failure::usage("compat must come first")),
        }
    }

    fn vhost_name(&self) -> String {
        self.global.vhost.clone().unwrap_or_else(|| DEFAULT_VHOST.into())
    }

    fn table(&self, table: Table, defaults: &[&str]) -> Result<String> {
        shown(table, self.global, defaults)
    }

    async fn list(
        &mut self,
        kind: CatalogKind,
        columns: &[&'static str],
        defaults: &[&str],
        is_wanted: impl Fn(&catalog_item::Kind) -> bool,
    ) -> Result<String> {
        let mut items = self.client.catalog(kind, self.global.vhost.as_deref()).await?;
        items.retain(is_wanted);
        self.table(rows::catalog(columns, items), defaults)
    }

    /// Deleting what is not there is said, and is bad data.
    async fn change_of(&mut self, kind: Kind, what: &str) -> Result<String> {
        if self.client.change(kind).await? {
            return Ok(String::new());
        }
        Err(Failure::new(Exit::Data, format!("{what} does not exist")))
    }

    async fn change(&mut self, kind: Kind) -> Result<String> {
        self.client.change(kind).await.map(|_| String::new())
    }

    async fn status(&mut self) -> Result<String> {
        let status = self.client.status().await?;
        Ok(match self.global.output {
            Form::Json => format!("{}\n", status_json(&status)),
            Form::Table => status_text(&status),
        })
    }

    async fn definitions(&mut self, verb: &Definitions) -> Result<String> {
        match verb {
            Definitions::Export { file } => {
                let document = self.client.export_definitions().await?;
                match file.as_deref().filter(|file| *file != Path::new("-")) {
                    Some(file) => write_private(file, &document).map(|()| String::new()),
                    None => Ok(format!("{}\n", String::from_utf8_lossy(&document))),
                }
            }
            Definitions::Import { .. } => {
                let Input::Document(document) = &self.input else { return Ok(String::new()) };
                let answer = self.client.import_definitions(document).await?;
                let mut text = format!("{} definitions, {} changes", answer.commands, answer.changes);
                if answer.kept_count > 0 {
                    text.push_str(&format!("; {} left as they are:", answer.kept_count));
                }
                for kept in &answer.kept {
                    text.push_str(&format!("\n  {kept}"));
                }
                Ok(text + "\n")
            }
        }
    }

    async fn policy(&mut self, verb: &Policy) -> Result<String> {
        match verb {
            Policy::Set { name, pattern, definition, priority, apply_to, operator } => {
                let command = meta::SetPolicy {
                    vhost: self.vhost_name(),
                    name: name.clone(),
                    operator: *operator,
                    pattern: pattern.clone(),
                    apply_to: apply_to.clone(),
                    priority: *priority,
                    definition: policy::definition(definition)?,
                };
                self.change(Kind::SetPolicy(command)).await
            }
            Policy::Delete { name, operator } => {
                let command = meta::ClearPolicy { vhost: self.vhost_name(), name: name.clone(), operator: *operator };
                self.change_of(Kind::ClearPolicy(command), &format!("policy '{name}'")).await
            }
            Policy::List { operator } => {
                let defaults = ["vhost", "name", "pattern", "apply-to", "definition", "priority"];
                let is_wanted = |item: &catalog_item::Kind| matches!(item, catalog_item::Kind::Policy(policy) if policy.operator == *operator);
                self.list(CatalogKind::Policies, rows::POLICIES, &defaults, is_wanted).await
            }
        }
    }

    async fn vhost(&mut self, verb: &Vhost) -> Result<String> {
        match verb {
            Vhost::Create { name, description, tags, default_queue_type } => {
                let command = meta::CreateVhost {
                    name: name.clone(),
                    description: description.clone(),
                    tags: tags.clone(),
                    default_queue_type: default_queue_type.clone(),
                    vhosts_max: 0,
                };
                self.client.change_with(Kind::CreateVhost(command), true).await.map(|_| String::new())
            }
            Vhost::Delete { name } => self.change(Kind::DeleteVhost(meta::DeleteVhost { name: name.clone() })).await,
            Vhost::List => {
                self.list(CatalogKind::Vhosts, rows::VHOSTS, &["name", "description", "tracing"], |_| true).await
            }
            Vhost::Update { name, description, tags, default_queue_type, trace } => {
                let command = meta::UpdateVhost {
                    name: name.clone(),
                    description: description.clone(),
                    tags: tags.as_ref().map(|tags| Tags { tags: words_of(tags) }),
                    default_queue_type: default_queue_type.clone(),
                    tracing: trace.map(|switch| switch == Switch::On),
                };
                self.change(Kind::UpdateVhost(command)).await
            }
            Vhost::Limits(verb) => self.limits(verb, true).await,
        }
    }

    async fn limits(&mut self, verb: &Limits, of_vhosts: bool) -> Result<String> {
        let of = |name: &String| Some(if of_vhosts { Of::Vhost(name.clone()) } else { Of::User(name.clone()) });
        match verb {
            Limits::Set { name, limits } => {
                let limits = SetLimits { of: of(name), ..policy::limits(limits)? };
                self.change(Kind::SetLimits(limits)).await
            }
            Limits::Clear { name } => {
                self.change(Kind::SetLimits(SetLimits { of: of(name), ..SetLimits::default() })).await
            }
            Limits::List => {
                let is_wanted = |item: &catalog_item::Kind| match item {
                    catalog_item::Kind::Limits(limits) => matches!(limits.of, Some(Of::Vhost(_))) == of_vhosts,
                    _ => false,
                };
                let defaults = [if of_vhosts { "vhost" } else { "user" }, "limits"];
                self.list(CatalogKind::Limits, rows::LIMITS, &defaults, is_wanted).await
            }
        }
    }

    async fn user(&mut self, verb: &User) -> Result<String> {
        let password = match &mut self.input {
            Input::Password(password) => password.take(),
            _ => None,
        };
        match verb {
            User::Create { name, tags, .. } => {
                let request = PutUserRequest {
                    name: name.clone(),
                    password,
                    clear_password: false,
                    tags: Some(Tags { tags: tags.clone() }),
                    existence: Existence::MustBeNew.into(),
                };
                self.client.put_user(request).await.map(|_| String::new())
            }
            User::Delete { name } => self.change(Kind::DeleteUser(meta::DeleteUser { name: name.clone() })).await,
            User::Passwd { name, .. } => {
                let request = PutUserRequest {
                    name: name.clone(),
                    clear_password: password.is_none(),
                    password,
                    tags: None,
                    existence: Existence::MustExist.into(),
                };
                self.client.put_user(request).await.map(|_| String::new())
            }
            User::Tags { name, tags } => {
                let request = PutUserRequest {
                    name: name.clone(),
                    tags: Some(Tags { tags: tags.clone() }),
                    existence: Existence::MustExist.into(),
                    ..PutUserRequest::default()
                };
                self.client.put_user(request).await.map(|_| String::new())
            }
            User::List => self.list(CatalogKind::Users, rows::USERS, &["user", "tags"], |_| true).await,
            User::Limits(verb) => self.limits(verb, false).await,
        }
    }

    async fn perm(&mut self, verb: &Perm) -> Result<String> {
        let vhost = self.vhost_name();
        match verb {
            Perm::Set { user, first, second, third, topic } => {
                let kind = match (topic, [first, second], third) {
                    (None, [configure, write], Some(read)) => Kind::SetPermissions(meta::SetPermissions {
                        user: user.clone(),
                        vhost,
                        configure: configure.clone(),
                        write: write.clone(),
                        read: read.clone(),
                    }),
                    (Some(exchange), [write, read], None) => Kind::SetTopicPermissions(meta::SetTopicPermissions {
                        user: user.clone(),
                        vhost,
                        exchange: exchange.clone(),
                        write: write.clone(),
                        read: read.clone(),
                    }),
                    (None, ..) => return Err(Failure::usage("three patterns are needed: CONFIGURE WRITE READ")),
                    (Some(_), ..) => return Err(Failure::usage("with --topic, two patterns are needed: WRITE READ")),
                };
                self.change(kind).await
            }
            Perm::Clear { user, topic: None } => {
                self.change(Kind::ClearPermissions(meta::ClearPermissions { user: user.clone(), vhost })).await
            }
            Perm::Clear { user, topic: Some(exchange) } => {
                let command = meta::ClearTopicPermissions { user: user.clone(), vhost, exchange: exchange.clone() };
                self.change(Kind::ClearTopicPermissions(command)).await
            }
            Perm::List { topic, user } => {
                let wanted = |name: &str| user.as_deref().is_none_or(|user| user == name);
                let is_wanted = |item: &catalog_item::Kind| match item {
                    catalog_item::Kind::Permissions(one) => wanted(&one.user),
                    catalog_item::Kind::TopicPermissions(one) => wanted(&one.user),
                    _ => false,
                };
                let (kind, columns) = match topic {
                    true => (CatalogKind::TopicPermissions, rows::TOPIC_PERMISSIONS),
                    false => (CatalogKind::Permissions, rows::PERMISSIONS),
                };
                self.list(kind, columns, columns, is_wanted).await
            }
        }
    }

    async fn param(&mut self, verb: &Param) -> Result<String> {
        match verb {
            Param::Set { first, second, third, global } => {
                let (vhost, component, name, value) = match (global, [first, second], third) {
                    (true, [name, value], None) => (String::new(), String::new(), name, value),
                    (false, [component, name], Some(value)) => (self.vhost_name(), component.clone(), name, value),
                    (true, ..) => return Err(Failure::usage("a global parameter is set with NAME JSON")),
                    (false, ..) => return Err(Failure::usage("a parameter is set with COMPONENT NAME JSON")),
                };
                let value = policy::json_value(value)?;
                self.change(Kind::SetParameter(meta::SetParameter { vhost, component, name: name.clone(), value }))
                    .await
            }
            Param::Delete { words, global } => {
                let (vhost, component, name) = match (global, words.as_slice()) {
                    (true, [name]) => (String::new(), String::new(), name),
                    (false, [component, name]) => (self.vhost_name(), component.clone(), name),
                    (true, _) => return Err(Failure::usage("a global parameter is deleted with NAME")),
                    (false, _) => return Err(Failure::usage("a parameter is deleted with COMPONENT NAME")),
                };
                let command = meta::ClearParameter { vhost, component, name: name.clone() };
                self.change_of(Kind::ClearParameter(command), &format!("parameter '{name}'")).await
            }
            Param::List { global } => {
                let is_wanted = |item: &catalog_item::Kind| matches!(item, catalog_item::Kind::Parameter(one) if one.component.is_empty() == *global);
                let defaults: &[&str] = if *global { &["name", "value"] } else { rows::PARAMETERS };
                self.list(CatalogKind::Parameters, rows::PARAMETERS, defaults, is_wanted).await
            }
        }
    }

    async fn queue(&mut self, verb: &Queue) -> Result<String> {
        let vhost = self.vhost_name();
        match verb {
            Queue::List => {
                let queues = self.client.queues(self.global.vhost.as_deref()).await?;
                let defaults = [
                    "vhost",
                    "name",
                    "type",
                    "messages_ready",
                    "messages_unacknowledged",
                    "consumers",
                    "state",
                    "node",
                ];
                self.table(rows::queues(&queues), &defaults)
            }
            Queue::Purge { name } => Ok(format!("{} messages\n", self.client.purge(&vhost, name).await?)),
            Queue::Delete { name, if_unused, if_empty } => {
                let request =
                    DeleteQueueRequest { vhost, name: name.clone(), if_unused: *if_unused, if_empty: *if_empty };
                Ok(format!("{} messages\n", self.client.delete_queue(request).await?))
            }
        }
    }

    async fn connection(&mut self, verb: &Connection) -> Result<String> {
        match verb {
            Connection::List => {
                let mut connections = self.client.connections().await?;
                connections.retain(|one| self.global.vhost.as_deref().is_none_or(|vhost| one.vhost == vhost));
                let defaults = ["pid", "name", "user", "vhost", "state", "channels", "user_provided_name", "node"];
                self.table(rows::connections(&connections), &defaults)
            }
            Connection::Close { connection, user, all, reason } => {
                let vhost = self.global.vhost.clone();
                if connection.is_none() && user.is_none() && vhost.is_none() && !all {
                    return Err(Failure::usage("say which: a pid or number, --user USER, -p VHOST, or --all"));
                }
                let number = connection.as_deref().map(|text| {
                    let number = rows::number_of_pid(text).or_else(|| text.parse().ok());
                    number.ok_or_else(|| {
                        Failure::usage(format!("'{text}' is neither a pid nor a number of a connection"))
                    })
                });
                let number = number.transpose()?;
                let request =
                    CloseConnectionsRequest { number, vhost, user: user.clone(), reason: reason.clone(), limit: 0 };
                match self.client.close_connections(request).await? {
                    0 if number.is_some() => Err(Failure::new(Exit::Data, "there is no such connection")),
                    closed => Ok(format!("{closed} connections closed\n")),
                }
            }
        }
    }

    async fn node(&mut self, verb: &Node) -> Result<String> {
        match verb {
            Node::List => {
                let cluster = self.client.cluster().await?;
                self.table(cluster::members(&cluster), &cluster::NODE_COLUMNS)
            }
            Node::Drain => {
                let answer = self.client.set_drained(true).await?;
                Ok(match answer.unchanged {
                    true => "the node was drained already\n".into(),
                    false => format!("drained, {} connections closed\n", answer.closed),
                })
            }
            Node::Revive => Ok(match self.client.set_drained(false).await?.unchanged {
                true => "the node was not drained\n".into(),
                false => "it serves clients again\n".into(),
            }),
        }
    }

    async fn alarm(&mut self, verb: &Alarm) -> Result<String> {
        let alarms = match verb {
            Alarm::List => self.client.status().await?.alarms.unwrap_or_default(),
            Alarm::Set { memory_watermark: None, disk_limit: None } => {
                return Err(Failure::usage("say --memory-watermark or --disk-limit"));
            }
            Alarm::Set { memory_watermark, disk_limit } => {
                let memory = memory_watermark.as_deref().map(memory_limit).transpose()?;
                let disk = disk_limit.as_deref().map(disk_limit_of).transpose()?;
                self.client.set_alarm_limits(AlarmLimits { memory, disk }).await?
            }
        };
        let columns = ["resource", "alarm", "now_bytes", "limit_bytes"];
        let AlarmLimitsInEffect { memory_limit_bytes, disk_free_limit_bytes, memory_bytes, disk_free_bytes, .. } =
            alarms;
        let rows = vec![
            vec!["memory".into(), alarms.memory_alarm.into(), memory_bytes.into(), memory_limit_bytes.into()],
            vec!["disk".into(), alarms.disk_alarm.into(), disk_free_bytes.into(), disk_free_limit_bytes.into()],
        ];
        self.table(Table::new(&columns, rows), &columns)
    }
}

/// A share with a point, or a size.
pub fn memory_limit(text: &str) -> Result<Memory> {
    match text.parse::<f64>() {
        Ok(share) if text.contains('.') || share <= 1.0 => Ok(Memory::MemoryRelative(share)),
        _ => size(text).map(Memory::MemoryBytes),
    }
}

fn disk_limit_of(text: &str) -> Result<Disk> {
    match text.strip_prefix("mem:") {
        Some(factor) => {
            let factor = factor.parse().map_err(|_| Failure::usage(format!("'{factor}' is no number")))?;
            Ok(Disk::DiskRelativeToMemory(factor))
        }
        None => size(text).map(Disk::DiskFreeBytes),
    }
}

fn words_of(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The node as JSON.
pub fn status_json(status: &Status) -> serde_json::Value {
    let alarms = status.alarms.unwrap_or_default();
    let set = [("memory", alarms.memory_alarm), ("disk", alarms.disk_alarm)];
    let set: Vec<&str> = set.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect();
    let listeners: Vec<_> = status
        .listeners
        .iter()
        .map(|one| json!({"node": status.node, "protocol": one.protocol, "interface": one.address, "port": one.port}))
        .collect();
    json!({
        "node": status.node,
        "product_name": "brokerd",
        "product_version": status.version,
        "rabbitmq_version": status.rabbitmq_version,
        "cluster_name": status.cluster_name,
        "nodes": status.nodes,
        "nodes_running": status.nodes_running,
        "drained": status.drained,
        "paused": status.paused,
        "pid": status.pid,
        "uptime": status.uptime_ms / 1000,
        "data_directory": status.data_dir,
        "alarms": set,
        "listeners": listeners,
        "memory": alarms.memory_bytes,
        "vm_memory_high_watermark_limit": alarms.memory_limit_bytes,
        "disk_free": alarms.disk_free_bytes,
        "disk_free_limit": alarms.disk_free_limit_bytes,
        "totals": {
            "virtual_host_count": status.vhosts,
            "connection_count": status.connections,
            "channel_count": status.channels,
            "consumer_count": status.consumers,
            "queue_count": status.queues,
            "queues_on_this_node": status.queues_here,
            "messages_ready": status.messages_ready,
            "messages_unacknowledged": status.messages_unacknowledged,
        },
    })
}

/// The node in lines.
pub fn status_text(status: &Status) -> String {
    let alarms = status.alarms.unwrap_or_default();
    let flag = |is_set: bool| if is_set { "  ALARM: publishers are blocked" } else { "" };
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let (cluster, queues) = match status.nodes {
        0 | 1 => (status.cluster_name.clone(), status.queues.to_string()),
        nodes => (
            format!("{}, {} of {nodes} nodes are running", status.cluster_name, status.nodes_running),
            format!("{}, {} of them on this node", status.queues, status.queues_here),
        ),
    };
    let mut lines = vec![
        ("node", status.node.clone()),
        ("version", format!("brokerd {}, as RabbitMQ {}", status.version, status.rabbitmq_version)),
        ("cluster", cluster),
        ("process", status.pid.to_string()),
        ("uptime", format!("{} s", status.uptime_ms / 1000)),
        ("data directory", status.data_dir.clone()),
        (
            "memory",
            format!("{} of {}{}", mib(alarms.memory_bytes), mib(alarms.memory_limit_bytes), flag(alarms.memory_alarm)),
        ),
        (
            "disk free",
            format!(
                "{}, least {}{}",
                mib(alarms.disk_free_bytes),
                mib(alarms.disk_free_limit_bytes),
                flag(alarms.disk_alarm)
            ),
        ),
        ("vhosts", status.vhosts.to_string()),
        ("connections", status.connections.to_string()),
        ("channels", status.channels.to_string()),
        ("consumers", status.consumers.to_string()),
        ("queues", queues),
        ("messages", format!("{} ready, {} unacknowledged", status.messages_ready, status.messages_unacknowledged)),
    ];
    if status.drained {
        lines.push(("drained", "serves no clients until `brokerctl node revive`".into()));
    }
    if status.paused {
        lines.push(("paused", "serves no clients: it sees too few of the cluster's nodes".into()));
    }
    let listeners =
        status.listeners.iter().map(|one| ("listener", format!("{} {} port {}", one.protocol, one.address, one.port)));
    lines.extend(listeners);
    lines.iter().map(|(name, value)| format!("{name:16}{value}\n")).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_file_with_hashes_is_its_owners_also_if_it_was_everybodys() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("brokerctl-private-{}", std::process::id()));
        std::fs::write(&path, "a file that was there").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        write_private(&path, b"{}").unwrap();
        let (text, mode) = (std::fs::read(&path).unwrap(), std::fs::metadata(&path).unwrap().permissions().mode());
        std::fs::remove_file(&path).unwrap();
        assert_eq!((&*text, mode & 0o777), (&b"{}"[..], 0o600));
        // What is no file stays as it is.
        write_private(Path::new("/dev/null"), b"{}").unwrap();
    }

    #[test]
    fn sizes_and_shares_are_told_apart() {
        assert_eq!(size("2GB").unwrap(), 2_000_000_000);
        assert_eq!(size("512MiB").unwrap(), 512 << 20);
        assert_eq!(size("1000").unwrap(), 1000);
        assert!(
            ["", "GB", "1XB", "-1", "99999999999999999999", "99999999999GB"].iter().all(|text| size(text).is_err())
        );
        assert_eq!(memory_limit("0.4").unwrap(), Memory::MemoryRelative(0.4));
        assert_eq!(memory_limit("0").unwrap(), Memory::MemoryRelative(0.0));
        assert_eq!(memory_limit("2GB").unwrap(), Memory::MemoryBytes(2_000_000_000));
        assert_eq!(disk_limit_of("mem:1.5").unwrap(), Disk::DiskRelativeToMemory(1.5));
    }
}
