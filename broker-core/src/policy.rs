//! Policies: what an operator sets on the queues and exchanges of a vhost whose names match a pattern.
//!
//! A [`Policy`] is checked when it is made, with RabbitMQ's words ([`keys`]). The [`Policies`] of a vhost say which one governs a queue or an
//! exchange: of those that match, the one of highest priority, and beside it one operator policy ([`Governing`]). What a queue's arguments and
//! its policies come to together is in [`merge`].

mod keys;
mod merge;
mod set;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

pub use set::{Governing, POLICIES_MAX, Policies};

use crate::access::{BadPattern, Pattern};
use crate::arguments::QueueType;
use crate::name::VhostName;

/// A policy's name may be this long, in octets.
pub const NAME_MAX_BYTES: usize = 1024;
/// The keys and values of a policy together may be this long, in octets.
pub const DEFINITION_MAX_BYTES: usize = 64 * 1024;

/// A policy or an operator policy, known to make sense.
#[derive(Clone, Debug)]
pub struct Policy {
    vhost: VhostName,
    name: Arc<str>,
    operator: bool,
    pattern: Pattern,
    apply_to: ApplyTo,
    priority: i64,
    definition: Definition,
    governs: GovernedTypes,
}

/// What a policy is made from, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyDraft {
    /// Where it is to act.
    pub vhost: VhostName,
    /// Its name, unique in the vhost among policies, or among operator policies.
    pub name: String,
    /// Whether it is an operator policy.
    pub operator: bool,
    /// A regular expression; matches anywhere in a name, the empty one matches all names.
    pub pattern: String,
    /// What it is for; see [`ApplyTo::parse`].
    pub apply_to: String,
    /// The highest wins.
    pub priority: i64,
    /// Keys and values, in any order.
    pub definition: Vec<(String, PolicyValue)>,
}

/// Keys and values of a policy, sorted by key, each key once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition(Vec<(String, PolicyValue)>);

/// A value in a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyValue {
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
    /// True or false.
    Flag(bool),
    /// Texts.
    List(Vec<String>),
}

/// What a policy is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ApplyTo {
    /// Queues and exchanges.
    #[default]
    All,
    /// Queues of every type.
    Queues,
    /// Exchanges.
    Exchanges,
    /// Classic queues.
    ClassicQueues,
    /// Quorum queues.
    QuorumQueues,
    /// Streams: there are none here.
    Streams,
}

/// What is wrong with a policy, one line for each fault, in RabbitMQ's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPolicy(Vec<String>);

/// Types of queues that know every key of a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct GovernedTypes {
    classic: bool,
    quorum: bool,
}

impl Policy {
    /// Checks a policy. All faults are told: of the definition first one, then pattern, purpose and name.
    pub fn new(draft: PolicyDraft) -> Result<Policy, BadPolicy> {
        let definition = Definition::new(draft.definition, draft.operator);
        let pattern = Pattern::new(&draft.pattern)
            .map_err(|bad| format!("pattern should be regular expression but is invalid: {}", in_one_line(&bad)));
        let apply_to = ApplyTo::parse(&draft.apply_to).ok_or_else(|| {
            format!("apply-to '{}' unrecognised; should be 'queues', 'exchanges' or 'all'", draft.apply_to)
        });
        let name = check_name(&draft.name);
        match (definition, pattern, apply_to, name) {
            (Ok(definition), Ok(pattern), Ok(apply_to), Ok(())) => Ok(Policy {
                vhost: draft.vhost,
                name: draft.name.into(),
                operator: draft.operator,
                pattern,
                apply_to,
                priority: draft.priority,
                governs: definition.governed_types(),
                definition,
            }),
            (definition, pattern, apply_to, name) => {
                let faults = [definition.err(), pattern.err(), apply_to.err(), name.err()];
                Err(BadPolicy(faults.into_iter().flatten().collect()))
            }
        }
    }

    /// Where it acts.
    pub fn vhost(&self) -> &VhostName {
        &self.vhost
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is an operator policy.
    pub fn operator(&self) -> bool {
        self.operator
    }

    /// Its pattern, as it was written.
    pub fn pattern(&self) -> &str {
        self.pattern.as_str()
    }

    /// What it is for.
    pub fn apply_to(&self) -> ApplyTo {
        self.apply_to
    }

    /// Its priority.
    pub fn priority(&self) -> i64 {
        self.priority
    }

    /// What it sets.
    pub fn definition(&self) -> &Definition {
        &self.definition
    }

    /// Whether it can govern a queue of that name and type: a policy with a key that the type does not know governs none of them.
    pub fn matches_queue(&self, name: &str, queue_type: QueueType) -> bool {
        let (meant, known) = match queue_type {
            QueueType::Classic => (ApplyTo::ClassicQueues, self.governs.classic),
            QueueType::Quorum => (ApplyTo::QuorumQueues, self.governs.quorum),
        };
        let meant = self.apply_to == meant || matches!(self.apply_to, ApplyTo::All | ApplyTo::Queues);
        meant && known && self.matches_name(name)
    }

    /// Whether it can govern an exchange of that name.
    pub fn matches_exchange(&self, name: &str) -> bool {
        matches!(self.apply_to, ApplyTo::All | ApplyTo::Exchanges) && self.matches_name(name)
    }

    fn matches_name(&self, name: &str) -> bool {
        #[cfg(test)]
        tests::MATCHED.with(|matched| matched.set(matched.get() + 1));
        self.pattern.as_str().is_empty() || self.pattern.matches(name)
    }
}

impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        (&self.vhost, &self.name, self.operator, self.pattern.as_str(), self.apply_to, self.priority, &self.definition)
            == (
                &other.vhost,
                &other.name,
                other.operator,
                other.pattern.as_str(),
                other.apply_to,
                other.priority,
                &other.definition,
            )
    }
}

impl Eq for Policy {}

impl ApplyTo {
    const ALL: [ApplyTo; 6] = [
        ApplyTo::All,
        ApplyTo::Queues,
        ApplyTo::Exchanges,
        ApplyTo::ClassicQueues,
        ApplyTo::QuorumQueues,
        ApplyTo::Streams,
    ];

    /// The purpose of that name. The three that RabbitMQ has since 3.12 are known too.
    pub fn parse(name: &str) -> Option<ApplyTo> {
        ApplyTo::ALL.into_iter().find(|apply_to| apply_to.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            ApplyTo::All => "all",
            ApplyTo::Queues => "queues",
            ApplyTo::Exchanges => "exchanges",
            ApplyTo::ClassicQueues => "classic_queues",
            ApplyTo::QuorumQueues => "quorum_queues",
            ApplyTo::Streams => "streams",
        }
    }
}

impl Definition {
    fn new(mut items: Vec<(String, PolicyValue)>, operator: bool) -> Result<Definition, String> {
        items.sort_by(|(one, _), (other, _)| one.cmp(other));
        if let Some([(key, _), _]) = items.array_windows().find(|[(one, _), (other, _)]| one == other) {
            return Err(format!("the policy sets {key} twice"));
        }
        if items.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > DEFINITION_MAX_BYTES {
            return Err(format!("the policy is longer than {DEFINITION_MAX_BYTES} octets"));
        }
        let definition = Definition(items);
        keys::check(&definition, operator)?;
        Ok(definition)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&PolicyValue> {
        let place = self.0.binary_search_by(|(found, _)| found.as_str().cmp(key)).ok()?;
        self.0.get(place).map(|(_, value)| value)
    }

    /// The value of a key that counts something.
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            PolicyValue::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The value of a key that names something.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            PolicyValue::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &PolicyValue)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }
}

impl PolicyValue {
    fn len(&self) -> usize {
        match self {
            PolicyValue::Number(_) | PolicyValue::Flag(_) => size_of::<i64>(),
            PolicyValue::Text(text) => text.len(),
            PolicyValue::List(items) => items.iter().map(|item| item.len() + size_of::<String>()).sum(),
        }
    }
}

impl fmt::Display for BadPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Validation failed\n\n")?;
        self.0.iter().try_for_each(|fault| writeln!(f, "{fault}"))
    }
}

impl std::error::Error for BadPolicy {}

/// What is wrong with a pattern: the last line says it, those before it show where.
fn in_one_line(bad: &BadPattern) -> String {
    let text = bad.to_string();
    let line = text.lines().next_back().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn check_name(name: &str) -> Result<(), String> {
    match name.len() {
        0 => Err("the policy has no name".into()),
        1..=NAME_MAX_BYTES => Ok(()),
        _ => Err(format!("the name of the policy is longer than {NAME_MAX_BYTES} octets")),
    }
}
