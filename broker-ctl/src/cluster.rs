//! The cluster: what is shown of it, and what changes it. A node that joins or leaves starts again, and is waited for.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proto::admin::v1::{Cluster, LeaveClusterRequest, Member};
use proto::meta::command::Kind;
use proto::meta::{self};
use serde_json::{Value, json};

use crate::args::{Cluster as Verb, Form, Global, Secret};
use crate::client::{Client, block_on};
use crate::exit::{Exit, Failure};
use crate::run::print;
use crate::table::Table;
use crate::target::{Asking, Target};

type Result<T> = std::result::Result<T, Failure>;

/// Between two looks at a node that is waited for.
const POLL: Duration = Duration::from_millis(200);
/// Octets of a secret.
const SECRET_BYTES: usize = 32;
/// In the data directory: what brokerd is to do at its next start...
const NEXT_START: &str = "next-start";
/// ...and what was lost when it formed its cluster again.
const LOST: &str = "force-boot.txt";
/// The log of a member of a cluster.
const LOG: &str = "catalog/raft.redb";
/// Columns of a list of nodes that are shown without being asked for.
pub const NODE_COLUMNS: [&str; 8] = ["number", "name", "address", "state", "role", "queues", "connections", "version"];

/// Carries a verb out.
pub fn run(verb: &Verb, global: &Global) -> Result<()> {
    if let Verb::Secret(Secret::New { file }) = verb {
        return print(&new_secret(file)?);
    }
    let place =
        Place { target: Target::of(&global.place, Asking::User)?, timeout: Duration::from_secs(global.timeout) };
    let text = match verb {
        Verb::Status => {
            let cluster = place.cluster()?;
            match global.output {
                Form::Json => format!("{}\n", status_json(&cluster)),
                Form::Table => status_text(&cluster),
            }
        }
        Verb::Partitions => {
            let cluster = place.cluster()?;
            match global.output {
                Form::Json => views(&cluster).json(),
                Form::Table => matrix(&cluster),
            }
        }
        Verb::Name { name } => {
            let set = Kind::SetClusterName(meta::SetClusterName { name: name.clone() });
            place.ask(async |client| client.change(set).await)?;
            String::new()
        }
        Verb::Join { node } => join(&place, node)?,
        Verb::Leave { stop, yes } => leave(&place, *stop, *yes)?,
        Verb::Forget { name } => {
            let answer = place.ask(async |client| client.forget_node(name).await)?;
            format!("{name} (node {}) is forgotten, {} queues with it\n", answer.number, answer.queues)
        }
        Verb::Await { nodes } => {
            wait_for(&place, *nodes)?;
            String::new()
        }
        Verb::ForceBoot { yes } => {
            // The directory is only needed where the broker cannot be asked.
            force_boot(&place, Target::data_dir(&global.place)?, *yes)?
        }
        Verb::Secret(_) => String::new(),
    };
    print(&text)
}

/// Where the node is, and how long is waited for it.
pub struct Place {
    /// Where it is asked.
    pub target: Target,
    /// All in all.
    pub timeout: Duration,
}

impl Place {
    /// Asks the node.
    pub fn ask<T>(&self, work: impl AsyncFnOnce(&mut Client) -> Result<T>) -> Result<T> {
        block_on(self.timeout, async {
            let mut client = Client::connect(&self.target).await?;
            work(&mut client).await
        })
    }

    /// The cluster as the node sees it.
    pub fn cluster(&self) -> Result<Cluster> {
        self.ask(async |client| client.cluster().await)
    }

    /// Looks at the cluster until it is as is wanted. A node that starts again is not there for a while.
    pub fn until(&self, late: &str, mut is_so: impl FnMut(&Cluster) -> bool) -> Result<Cluster> {
        let give_up = Instant::now() + self.timeout;
        let work = async {
            loop {
                let looked = match Client::connect(&self.target).await {
                    Ok(mut client) => client.cluster().await,
                    Err(failure) => Err(failure),
                };
                match looked {
                    Ok(cluster) if is_so(&cluster) => return Ok(cluster),
                    // It goes away while it is asked.
                    Err(failure) if !matches!(failure.exit, Exit::Unavailable | Exit::Software) => return Err(failure),
                    looked if Instant::now() >= give_up => {
                        let why = looked.err().map_or_else(String::new, |failure| format!(" ({failure})"));
                        return Err(Failure::new(Exit::TryAgain, format!("{late}{why}")));
                    }
                    _ => tokio::time::sleep(POLL).await,
                }
            }
        };
        block_on(self.timeout + POLL * 5, work)
    }
}

/// Has a node join, and waits until it is there again.
pub fn join(place: &Place, node: &str) -> Result<String> {
    let answer = place.ask(async |client| client.join_cluster(node).await)?;
    note(&format!("{} has given this node the number {}; it starts again", answer.through, answer.number));
    let late = "the node has not come back in time as a member of the cluster: its log says why";
    let cluster = place.until(late, |cluster| cluster.id == answer.id)?;
    Ok(format!("{} nodes are in the cluster {} now\n", cluster.members.len(), cluster.name))
}

fn leave(place: &Place, stop: bool, yes: bool) -> Result<String> {
    let cluster = place.cluster()?;
    if let Some(own) = own(&cluster).filter(|own| own.queues > 0 && !yes) {
        return Err(Failure::usage(format!(
            "{} queues live on {}, and are gone for the cluster when it leaves: move or empty them first, or say --yes",
            own.queues, own.name
        )));
    }
    let queues = leave_or_reset(place, LeaveClusterRequest { stop, reset: false })?;
    let now = if stop { "it has ended, and is blank at its next start" } else { "it is a blank node of its own now" };
    Ok(format!("the node has left its cluster, {queues} queues with it; {now}\n"))
}

/// Has a node leave, and waits until it is there again, or gone.
pub fn leave_or_reset(place: &Place, request: LeaveClusterRequest) -> Result<u64> {
    let before = place.cluster()?;
    let queues = place.ask(async |client| client.leave_cluster(request).await)?;
    if request.stop {
        return Ok(queues);
    }
    note("it starts again");
    let late = "the node has not come back in time as a blank one: its log says why";
    let started = |cluster: &Cluster| own(cluster).map_or(0, |own| own.started_at);
    place.until(late, |cluster| {
        // One without a secret has no identity by which it could be told.
        if before.id.is_empty() { started(cluster) > started(&before) } else { cluster.id != before.id }
    })?;
    Ok(queues)
}

/// Waits until so many nodes run.
pub fn wait_for(place: &Place, nodes: u64) -> Result<()> {
    let mut told = None;
    let mut last = 0;
    let late = format!("there are not {nodes} running nodes within {} seconds", place.timeout.as_secs());
    let waited = place.until(&late, |cluster| {
        let names: Vec<&str> = cluster.members.iter().filter(|one| one.running).map(|one| &*one.name).collect();
        last = names.len() as u64;
        if told != Some(last) {
            told = Some(last);
            note(&format!("{last} of {nodes} nodes are running: {}", names.join(", ")));
        }
        last >= nodes
    });
    waited.map(drop)
}

/// Has a node go on as a cluster of itself, whether it runs, waits or is stopped.
pub fn force_boot(place: &Place, directory: Option<PathBuf>, yes: bool) -> Result<String> {
    let before = match place.cluster() {
        Ok(cluster) => Some(cluster),
        Err(failure) if failure.exit == Exit::Unavailable => None,
        Err(failure) => return Err(failure),
    };
    if let Some(cluster) = &before {
        if cluster.majority {
            return Err(Failure::new(
                Exit::Unavailable,
                "the node sees a majority of its cluster, so nothing has to be forced: forget the nodes that are lost (brokerctl cluster forget NAME)",
            ));
        }
        note(&to_be_lost(cluster));
    }
    if !yes {
        return Err(Failure::usage(
            "the other nodes are given up for good, with their queues and messages, and with changes that did not reach this one. If that is meant, say --yes",
        ));
    }
    let Some(cluster) = before else { return force_next_start(place, directory) };
    place.ask(async |client| client.force_boot().await)?;
    note("it starts again");
    let late = "the node has not come back in time: its log says why";
    let after = place.until(late, |after| after.id != cluster.id)?;
    Ok(format!("{} is the only node of cluster {} now\n", own(&after).map_or("it", |own| &*own.name), after.id))
}

fn to_be_lost(cluster: &Cluster) -> String {
    let others = cluster.members.iter().filter(|one| one.number != cluster.node);
    let lost = others.map(|one| {
        let seen = if one.running { " (which is running!)" } else { "" };
        format!("  {}{seen} with {} queues, {} of them durable", one.name, one.queues, one.durable_queues)
    });
    format!("given up with cluster {}:\n{}", cluster.id, lost.collect::<Vec<_>>().join("\n"))
}

/// The broker does not answer: it waits for the others, or is stopped. Either way it looks at the file.
fn force_next_start(place: &Place, directory: Option<PathBuf>) -> Result<String> {
    let Some(directory) = directory else {
        return Err(Failure::usage(
            "the broker does not answer: name its data directory with --data-dir, without --socket",
        ));
    };
    let shown = directory.display();
    if !directory.join(LOG).exists() {
        return Err(Failure::new(
            Exit::Data,
            format!("{shown} is not the data directory of a member of a cluster: name that with --data-dir"),
        ));
    }
    let lost = directory.join(LOST);
    remove_if_there(&lost)?;
    let plan = directory.join(NEXT_START);
    if plan.exists() {
        return Err(Failure::new(Exit::Unavailable, format!("something is planned already: {}", plan.display())));
    }
    let failed = |error: io::Error| Failure::new(Exit::Data, format!("cannot write {}: {error}", plan.display()));
    // Under its name it is whole: brokerd may be looking for it.
    let new = directory.join(format!("{NEXT_START}.new"));
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(b"force-boot\n")?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&new, &plan)).map_err(failed)?;
    if !is_locked(&directory) {
        return Ok(format!(
            "brokerd does not run: start it, and it forms a cluster of itself. Its log and {} say then what was lost\n",
            lost.display()
        ));
    }
    note("brokerd waits for the others; it gives them up now and starts again");
    place.until("brokerd has not come back in time: its log says why", |_| lost.exists())?;
    fs::read_to_string(&lost)
        .map_err(|error| Failure::new(Exit::Data, format!("cannot read {}: {error}", lost.display())))
}

/// Whether brokerd runs in a data directory.
fn is_locked(directory: &Path) -> bool {
    let Ok(lock) = File::open(directory.join("lock")) else { return false };
    matches!(lock.try_lock_shared(), Err(fs::TryLockError::WouldBlock))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::new(Exit::Data, format!("cannot remove {}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

fn new_secret(path: &Path) -> Result<String> {
    let failed = |error: io::Error| {
        let why = match error.kind() {
            io::ErrorKind::AlreadyExists => "it exists, and is left as it is. Name another file".to_owned(),
            _ => error.to_string(),
        };
        Failure::new(Exit::Data, format!("cannot make {}: {why}", path.display()))
    };
    let mut octets = [0; SECRET_BYTES];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut octets)).map_err(failed)?;
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    writeln!(file, "{}", STANDARD.encode(octets)).and_then(|()| file.sync_all()).map_err(failed)?;
    // The configuration may be read from anywhere.
    let whole = fs::canonicalize(path).unwrap_or_else(|_| path.into());
    let shown = whole.display();
    note(&format!(
        "copy {shown} to every node, for brokerd's user only, and name it there: cluster.secret_file = {shown}"
    ));
    Ok(String::new())
}

/// What goes on, for who waits; results go to standard output.
fn note(text: &str) {
    // There is nobody left to tell if standard error is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

/// The node that has answered.
pub fn own(cluster: &Cluster) -> Option<&Member> {
    cluster.members.iter().find(|one| one.number == cluster.node)
}

fn state(one: &Member) -> &'static str {
    match one {
        _ if !one.running => "not seen",
        _ if one.drained => "drained",
        _ if one.paused => "paused",
        _ => "running",
    }
}

fn role(cluster: &Cluster, one: &Member) -> &'static str {
    match one {
        _ if one.number == cluster.leader => "leader",
        _ if one.voter => "voter",
        _ => "learner",
    }
}

/// The resources of a node that are short.
pub fn alarms(one: &Member) -> Vec<&'static str> {
    let all = [("memory", one.memory_alarm), ("disk", one.disk_alarm)];
    all.into_iter().filter(|(_, is_set)| *is_set && one.running).map(|(name, _)| name).collect()
}

/// Nodes that run and do not see each other, each pair once.
pub fn apart(cluster: &Cluster) -> Vec<(&Member, &Member)> {
    let known = |one: &&Member| one.heard || one.number == cluster.node;
    let mut pairs = Vec::new();
    for (at, one) in cluster.members.iter().enumerate() {
        for other in cluster.members.iter().skip(at + 1) {
            let misses = |one: &Member, other: &Member| known(&one) && one.running && !one.sees.contains(&other.number);
            if one.running && other.running && (misses(one, other) || misses(other, one)) {
                pairs.push((one, other));
            }
        }
    }
    pairs
}

/// Host and port, an IPv6 address in brackets.
fn place_of(host: &str, port: u32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The nodes as a table.
pub fn members(cluster: &Cluster) -> Table {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let rows = cluster.members.iter().map(|one| {
        let known = |value: Value| if one.heard { value } else { Value::Null };
        let uptime = (one.running && one.started_at > 0).then(|| now.saturating_sub(one.started_at));
        let listeners: Vec<String> =
            one.listeners.iter().map(|at| format!("{} {}", at.protocol, place_of(&at.address, at.port))).collect();
        vec![
            one.number.into(),
            one.name.clone().into(),
            one.address.clone().into(),
            state(one).into(),
            role(cluster, one).into(),
            one.queues.into(),
            known(one.connections.into()),
            known(one.software.clone().into()),
            uptime.into(),
            alarms(one).join(", ").into(),
            listeners.join(", ").into(),
            (one.number == cluster.node).into(),
            one.durable_queues.into(),
        ]
    });
    let columns = [
        "number",
        "name",
        "address",
        "state",
        "role",
        "queues",
        "connections",
        "version",
        "uptime",
        "alarms",
        "listeners",
        "this_node",
        "durable_queues",
    ];
    Table::new(&columns, rows.collect())
}

fn status_text(cluster: &Cluster) -> String {
    let name_of = |number: u64| cluster.members.iter().find(|one| one.number == number).map(|one| one.name.clone());
    let mut lines = vec![("cluster", cluster.name.clone())];
    if cluster.id.is_empty() {
        lines.push(("id", "none: the node is alone, as no cluster.secret_file is configured".into()));
    } else {
        lines.push(("id", cluster.id.clone()));
    }
    lines.push(("this node", name_of(cluster.node).unwrap_or_default()));
    lines.push(("leader", name_of(cluster.leader).unwrap_or_else(|| "nobody that this node knows of".into())));
    let running = cluster.members.iter().filter(|one| one.running).count();
    let majority = match cluster.majority {
        true => String::new(),
        false => "; NO MAJORITY: nothing can be declared, deleted or otherwise changed".into(),
    };
    lines.push(("nodes", format!("{running} of {} are running{majority}", cluster.members.len())));
    lines.extend(
        apart(cluster)
            .into_iter()
            .map(|(one, other)| ("partition", format!("{} and {} do not see each other", one.name, other.name))),
    );
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:16}{value}\n")).collect();
    text.push('\n');
    let mut table = members(cluster);
    let shown =
        ["number", "name", "address", "state", "role", "queues", "connections", "version", "alarms", "listeners"];
    if let Ok(selected) = std::mem::take(&mut table).select(&shown) {
        text.push_str(&selected.aligned());
    }
    text
}

/// The cluster as JSON.
pub fn status_json(cluster: &Cluster) -> Value {
    let name_of = |number: u64| cluster.members.iter().find(|one| one.number == number).map(|one| one.name.clone());
    let members = cluster.members.iter().map(|one| {
        let listeners: Vec<Value> = one
            .listeners
            .iter()
            .map(|at| json!({"protocol": at.protocol, "interface": at.address, "port": at.port}))
            .collect();
        json!({
            "number": one.number,
            "name": one.name,
            "address": one.address,
            "running": one.running,
            "state": state(one),
            "role": role(cluster, one),
            "queues": one.queues,
            "durable_queues": one.durable_queues,
            "connections": one.heard.then_some(one.connections),
            "version": one.heard.then_some(&one.software),
            "started_at": one.heard.then_some(one.started_at),
            "alarms": alarms(one),
            "listeners": listeners,
            "sees": one.sees.iter().filter_map(|&number| name_of(number)).collect::<Vec<_>>(),
        })
    });
    let partitions: Vec<Value> = apart(cluster).iter().map(|(one, other)| json!([one.name, other.name])).collect();
    json!({
        "cluster_name": cluster.name,
        "cluster_id": cluster.id,
        "node": name_of(cluster.node),
        "leader": name_of(cluster.leader),
        "term": cluster.term,
        "majority": cluster.majority,
        "nodes": members.collect::<Vec<_>>(),
        "partitions": partitions,
    })
}

/// Whether one node sees another; none: nobody knows.
fn sees(cluster: &Cluster, one: &Member, other: &Member) -> Option<bool> {
    let is_known = one.number == cluster.node || (one.running && one.heard);
    is_known.then(|| one.number == other.number || one.sees.contains(&other.number))
}

fn matrix(cluster: &Cluster) -> String {
    // Columns of a table have fixed names, and these are the nodes': so the first row is the heading.
    let mut rows =
        vec![std::iter::once("sees".to_owned()).chain(cluster.members.iter().map(|one| one.name.clone())).collect()];
    for one in &cluster.members {
        let cell = |other: &Member| match sees(cluster, one, other) {
            _ if one.number == other.number => "-".to_owned(),
            Some(true) => "yes".to_owned(),
            Some(false) => "NO".to_owned(),
            None => "?".to_owned(),
        };
        rows.push(std::iter::once(one.name.clone()).chain(cluster.members.iter().map(cell)).collect::<Vec<String>>());
    }
    let width = rows.iter().flatten().map(|cell| cell.chars().count()).max().unwrap_or_default();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().map(|cell| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn views(cluster: &Cluster) -> Table {
    let rows = cluster.members.iter().map(|one| {
        let named = |wanted: bool| {
            let others = cluster.members.iter().filter(|other| other.number != one.number);
            let others = others.filter(|other| sees(cluster, one, other) == Some(wanted));
            Value::from(others.map(|other| other.name.clone()).collect::<Vec<_>>())
        };
        vec![one.name.clone().into(), sees(cluster, one, one).is_some().into(), named(true), named(false)]
    });
    Table::new(&["node", "known", "sees", "does_not_see"], rows.collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Three nodes as the first sees them: the second sees the first only, the third has gone.
    fn cluster() -> Cluster {
        let member = |number: u64, sees: &[u64]| Member {
            number,
            name: format!("rabbit@{number}"),
            running: number < 3,
            voter: number < 3,
            heard: true,
            sees: sees.to_vec(),
            queues: number,
            software: "brokerd 1".into(),
            ..Member::default()
        };
        let members = vec![member(1, &[2]), member(2, &[1]), member(3, &[1, 2])];
        Cluster { name: "c".into(), id: "ab".into(), node: 1, leader: 2, members, majority: true, ..Cluster::default() }
    }

    #[test]
    fn who_sees_whom_is_a_matrix() {
        let text = matrix(&cluster());
        let expected = "sees      rabbit@1  rabbit@2  rabbit@3\n\
                        rabbit@1  -         yes       NO\n\
                        rabbit@2  yes       -         NO\n\
                        rabbit@3  ?         ?         -\n";
        assert_eq!(text, expected);
        let rows: Value = serde_json::from_str(&views(&cluster()).json()).unwrap();
        assert_eq!(
            rows[0],
            json!({"node": "rabbit@1", "known": true, "sees": ["rabbit@2"], "does_not_see": ["rabbit@3"]})
        );
        assert_eq!(rows[2], json!({"node": "rabbit@3", "known": false, "sees": [], "does_not_see": []}));
    }

    #[test]
    fn a_partition_is_between_nodes_that_run() {
        let mut cluster = cluster();
        assert!(apart(&cluster).is_empty(), "a node that is down is no partition");
        cluster.members[2].running = true;
        // It sees both, and neither of them sees it.
        let pairs: Vec<(u64, u64)> = apart(&cluster).iter().map(|(one, other)| (one.number, other.number)).collect();
        assert_eq!(pairs, [(1, 3), (2, 3)]);
        assert!(status_text(&cluster).contains("rabbit@1 and rabbit@3 do not see each other"));
    }

    #[test]
    fn the_status_says_who_leads_and_whether_there_is_a_majority() {
        let mut cluster = cluster();
        let json = status_json(&cluster);
        assert_eq!((&json["leader"], &json["nodes"][1]["role"]), (&json!("rabbit@2"), &json!("leader")));
        assert_eq!((&json["nodes"][2]["state"], &json["nodes"][2]["role"]), (&json!("not seen"), &json!("learner")));
        let text = status_text(&cluster);
        assert!(text.contains("nodes           2 of 3 are running\n"), "{text}");
        assert!(!text.contains("NO MAJORITY"), "{text}");
        (cluster.majority, cluster.leader) = (false, 0);
        let text = status_text(&cluster);
        assert!(text.contains("NO MAJORITY") && text.contains("nobody that this node knows of"), "{text}");
        assert!(to_be_lost(&cluster).contains("rabbit@3 with 3 queues"));
    }

    #[test]
    fn a_secret_is_made_once_and_is_its_owners() {
        let directory = std::env::temp_dir().join(format!("brokerctl-secret-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let path = directory.join("secret");
        let said = new_secret(&path).unwrap();
        let (first, mode) = (fs::read_to_string(&path).unwrap(), fs::metadata(&path).unwrap().permissions().mode());
        let again = new_secret(&path).unwrap_err();
        let kept = fs::read_to_string(&path).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!((said.as_str(), mode & 0o777, again.exit), ("", 0o600, Exit::Data));
        assert!(first.trim().len() >= SECRET_BYTES && first == kept && !again.text.contains(first.trim()));
    }

    #[test]
    fn a_node_that_is_not_there_is_forced_at_its_next_start() {
        let directory = std::env::temp_dir().join(format!("brokerctl-force-{}", std::process::id()));
        fs::create_dir_all(directory.join("catalog")).unwrap();
        let place = Place { target: Target::Here(directory.join("admin.sock")), timeout: Duration::from_secs(5) };
        let strange = force_boot(&place, Some(directory.clone()), true).unwrap_err();
        fs::write(directory.join(LOG), "").unwrap();
        let unsaid = force_boot(&place, Some(directory.clone()), false).unwrap_err();
        let done = force_boot(&place, Some(directory.clone()), true).unwrap();
        let plan = fs::read_to_string(directory.join(NEXT_START)).unwrap();
        let twice = force_boot(&place, Some(directory.clone()), true).unwrap_err();
        fs::remove_dir_all(&directory).unwrap();
        assert!(strange.text.contains("is not the data directory of a member of a cluster"), "{strange}");
        assert_eq!((unsaid.exit, plan.as_str()), (Exit::Usage, "force-boot\n"));
        assert!(done.starts_with("brokerd does not run: start it"), "{done}");
        assert!(twice.text.starts_with("something is planned already"), "{twice}");
    }
}
