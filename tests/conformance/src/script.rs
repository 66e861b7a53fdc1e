//! Scenario files: `== name [slow|operator|restart]`, then a line a step, `#` comments.
//!
//! A step names a connection by a letter and a channel by a number. Methods and arguments are named as in the
//! specification (dashes become underscores in arguments); what is left out is empty, zero or false.
//!
//! | step | meaning |
//! |---|---|
//! | `open a [user= password= vhost= capabilities={} channel_max= frame_max= heartbeat= channels=1]` | handshake, then channels 1 to n |
//! | `connect a` | the socket only |
//! | `a1 queue.declare queue=q` | sends the method; reads up to its answer, if it has one |
//! | `a1 ! queue.declare queue=q` | sends without reading |
//! | `a1 basic.publish routing_key=q priority=1 body=x` | method, header and body; without `body=` only the method |
//! | `header a1 size=3 [class=60 weight=0 properties]` | a content header |
//! | `body a1 abc` | body frames |
//! | `wait a [n] [sorted] [within=ms]` | reads n events |
//! | `quiet a ms` | reads whatever comes within so many milliseconds |
//! | `barrier a1 [queue …]` | passive declares; shows what arrived before their answers |
//! | `poll a1 queue.declare queue=q passive=true until message_count=2` | repeats until so; before a look at what another connection has published without confirms |
//! | `send a 01ff` · `text a "AMQP…"` · `frame a type=1 channel=1 payload=hex [end=ce] [size=n]` | raw octets |
//! | `heartbeat a [within=ms]` | reads up to a heartbeat |
//! | `manual a` | closes are no longer answered by themselves |
//! | `drop a` · `sleep ms` · `restart` · `kill` | socket shut without a word · pause · SIGTERM or SIGKILL and start |
//! | `ctl set_policy p "^q$" {"max-length":1}` | `rabbitmqctl` in its own words; shows `refused` when it fails |
//! | `repeat n step` | the step n times, `{i}` is 1 to n |
//!
//! Confirms are shown one a publish, in order of their numbers within one `wait`. A connection that the broker closes is
//! answered and read to its end. At the end of a scenario the connections still open are closed, and whatever they
//! declared in the vhost `/` is deleted; users, vhosts, policies and limits that `ctl` made are taken back.

use crate::Error;

/// What a scenario needs from the runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// Seconds of waiting, and no names of its own: runs beside the others.
    Time,
    /// An administrator, and nobody else at the broker: what he changes may concern all.
    Operator,
    /// A broker that can be restarted.
    Restart,
}

/// A scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// `subject/name`.
    pub name: String,
    /// What it needs.
    pub needs: Needs,
    /// Its steps.
    pub steps: Vec<String>,
}

/// The scenario files, by subject.
const FILES: &[(&str, &str)] = &[
    ("connection", include_str!("../scenarios/connection.txt")),
    ("frames", include_str!("../scenarios/frames.txt")),
    ("channel", include_str!("../scenarios/channel.txt")),
    ("exchange", include_str!("../scenarios/exchange.txt")),
    ("routing", include_str!("../scenarios/routing.txt")),
    ("queue", include_str!("../scenarios/queue.txt")),
    ("publish", include_str!("../scenarios/publish.txt")),
    ("consume", include_str!("../scenarios/consume.txt")),
    ("settle", include_str!("../scenarios/settle.txt")),
    ("qos", include_str!("../scenarios/qos.txt")),
    ("confirm", include_str!("../scenarios/confirm.txt")),
    ("tracing", include_str!("../scenarios/tracing.txt")),
    ("transaction", include_str!("../scenarios/transaction.txt")),
    ("reply_to", include_str!("../scenarios/reply_to.txt")),
    ("ttl", include_str!("../scenarios/ttl.txt")),
    ("expires", include_str!("../scenarios/expires.txt")),
    ("length", include_str!("../scenarios/length.txt")),
    ("dead_letter", include_str!("../scenarios/dead_letter.txt")),
    ("priority", include_str!("../scenarios/priority.txt")),
    ("single_active", include_str!("../scenarios/single_active.txt")),
    ("consumer_priority", include_str!("../scenarios/consumer_priority.txt")),
    ("queue_arguments", include_str!("../scenarios/queue_arguments.txt")),
    ("alternate_exchange", include_str!("../scenarios/alternate_exchange.txt")),
    ("headers_exchange", include_str!("../scenarios/headers_exchange.txt")),
    ("consistent_hash", include_str!("../scenarios/consistent_hash.txt")),
    ("random_exchange", include_str!("../scenarios/random_exchange.txt")),
    ("recent_history", include_str!("../scenarios/recent_history.txt")),
    ("cc_bcc", include_str!("../scenarios/cc_bcc.txt")),
    ("policies", include_str!("../scenarios/policies.txt")),
    ("permissions", include_str!("../scenarios/permissions.txt")),
    ("limits", include_str!("../scenarios/limits.txt")),
    ("quorum", include_str!("../scenarios/quorum.txt")),
    ("vhosts", include_str!("../scenarios/vhosts.txt")),
    ("users", include_str!("../scenarios/users.txt")),
    ("alarms", include_str!("../scenarios/alarms.txt")),
    ("restart", include_str!("../scenarios/restart.txt")),
];

/// All scenarios in the order of the files.
pub fn all() -> Result<Vec<Scenario>, Error> {
    let mut scenarios = Vec::new();
    for (subject, text) in FILES {
        parse(subject, text, &mut scenarios)?;
    }
    Ok(scenarios)
}

/// Those whose name contains `filter`.
pub fn matching(filter: &str) -> Result<Vec<Scenario>, Error> {
    let scenarios: Vec<Scenario> = all()?.into_iter().filter(|scenario| scenario.name.contains(filter)).collect();
    if scenarios.is_empty() { Err(Error::new(format!("no scenario is called {filter}"))) } else { Ok(scenarios) }
}

fn parse(subject: &str, text: &str, scenarios: &mut Vec<Scenario>) -> Result<(), Error> {
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(title) = line.strip_prefix("== ") {
            let (name, needs) = match title.split_once(' ') {
                None => (title, Needs::Nothing),
                Some((name, "slow")) => (name, Needs::Time),
                Some((name, "operator")) => (name, Needs::Operator),
                Some((name, "restart")) => (name, Needs::Restart),
                Some(_) => return Err(Error::new(format!("unknown need: {line}"))),
            };
            scenarios.push(Scenario { name: format!("{subject}/{name}"), needs, steps: Vec::new() });
        } else {
            let scenario = scenarios.last_mut().filter(|scenario| scenario.name.starts_with(&format!("{subject}/")));
            let scenario = scenario.ok_or_else(|| Error::new(format!("{subject}: a step before any scenario")))?;
            scenario.steps.push(line.to_owned());
        }
    }
    Ok(())
}
