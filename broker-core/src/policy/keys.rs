//! The keys a policy may have, which values make sense, and what RabbitMQ says of those that do not.

use std::fmt::Write as _;

use super::{Definition, GovernedTypes, PolicyValue, in_one_line};
use crate::access::Pattern;
use crate::arguments::QueueType;

/// A segment of a stream may be this long, in octets.
const SEGMENT_MAX_BYTES: i64 = 3_000_000_000;
/// What RabbitMQ says when a key of mirroring comes without its mode.
const MODE_MISSING: &str = "ha-mode must be specified to specify ha-params, ha-sync-mode or ha-promote-on-shutdown";
const MODE_KEYS: [&str; 5] =
    ["ha-params", "ha-promote-on-failure", "ha-promote-on-shutdown", "ha-sync-batch-size", "ha-sync-mode"];
const UPSTREAM_KEYS: [&str; 3] = ["federation-upstream", "federation-upstream-pattern", "federation-upstream-set"];

/// What is known of a key.
struct Key {
    name: &'static str,
    /// Values that make sense. What depends on other keys is checked elsewhere.
    values: Values,
    /// What is said of other values, after the value.
    fault: &'static str,
    /// Queue types that know the key.
    known: GovernedTypes,
    /// Whether an operator policy may have it.
    operator: bool,
}

/// Which values make sense.
enum Values {
    /// Numbers from here on.
    From(i64),
    /// Numbers in a range.
    Between(i64, i64),
    /// Any text.
    AnyText,
    /// One of these texts.
    OneOf(&'static [&'static str]),
    /// A number and its unit, of years down to seconds.
    Age,
    /// Whatever [`check_mirroring`] says.
    Mirroring,
}

const BOTH: GovernedTypes = GovernedTypes { classic: true, quorum: true };
const CLASSIC: GovernedTypes = GovernedTypes { classic: true, quorum: false };
const QUORUM: GovernedTypes = GovernedTypes { classic: false, quorum: true };
const STREAM: GovernedTypes = GovernedTypes { classic: false, quorum: false };

/// In the order RabbitMQ checks them; those of mirroring are checked together, after all others.
const KEYS: &[Key] = &[
    key(
        "queue-master-locator",
        Values::OneOf(&["client-local", "min-masters", "random"]),
        " invalid queue-master-locator value",
        CLASSIC,
    ),
    key("alternate-exchange", Values::AnyText, " is not a valid alternate exchange name", BOTH),
    key("dead-letter-exchange", Values::AnyText, " is not a valid dead letter exchange name", BOTH),
    key("dead-letter-routing-key", Values::AnyText, " is not a valid dead letter routing key", BOTH),
    key(
        "dead-letter-strategy",
        Values::OneOf(&["at-most-once", "at-least-once"]),
        " is not a valid dead letter strategy",
        QUORUM,
    ),
    limit("delivery-limit", Values::From(0), " is not a valid delivery limit", QUORUM),
    limit("expires", Values::From(1), " is not a valid queue expiry", BOTH),
    key("initial-cluster-size", Values::From(0), " is not a valid cluster size", STREAM),
    key("max-age", Values::Age, " is not a valid max age", STREAM),
    limit("max-in-memory-bytes", Values::From(0), " is not a valid maximum memory in bytes", BOTH),
    limit("max-in-memory-length", Values::From(0), " is not a valid maximum memory in bytes", BOTH),
    limit("max-length", Values::From(0), " is not a valid maximum length", BOTH),
    limit("max-length-bytes", Values::From(0), " is not a valid maximum length in bytes", BOTH),
    limit("message-ttl", Values::From(0), " is not a valid message TTL", BOTH),
    key(
        "overflow",
        Values::OneOf(&["drop-head", "reject-publish", "reject-publish-dlx"]),
        " is not a valid overflow value",
        BOTH,
    ),
    key(
        "queue-leader-locator",
        Values::OneOf(&["client-local", "balanced", "random", "least-leaders"]),
        " is not a valid queue leader locator value",
        QUORUM,
    ),
    key("queue-mode", Values::OneOf(&["default", "lazy"]), " is not a valid queue-mode value", CLASSIC),
    key("queue-version", Values::Between(1, 2), " is not a valid queue-version value", BOTH),
    key("stream-max-segment-size-bytes", Values::Between(0, SEGMENT_MAX_BYTES), " is not a valid segment size", STREAM),
    key("federation-upstream", Values::AnyText, " is not a valid federation upstream name", BOTH),
    key("federation-upstream-pattern", Values::AnyText, " is not a valid federation upstream pattern name", BOTH),
    key("federation-upstream-set", Values::AnyText, " is not a valid federation upstream set name", BOTH),
    key("ha-mode", Values::Mirroring, "", CLASSIC),
    key("ha-params", Values::Mirroring, "", CLASSIC),
    key("ha-promote-on-failure", Values::Mirroring, "", CLASSIC),
    key("ha-promote-on-shutdown", Values::Mirroring, "", CLASSIC),
    key("ha-sync-batch-size", Values::Mirroring, "", CLASSIC),
    key("ha-sync-mode", Values::Mirroring, "", CLASSIC),
];

const fn key(name: &'static str, values: Values, fault: &'static str, known: GovernedTypes) -> Key {
    Key { name, values, fault, known, operator: false }
}

/// A key of which the lowest value counts: an operator may set a ceiling with it.
const fn limit(name: &'static str, values: Values, fault: &'static str, known: GovernedTypes) -> Key {
    Key { name, values, fault, known, operator: true }
}

/// The first fault of a definition.
pub(super) fn check(definition: &Definition, operator: bool) -> Result<(), String> {
    if definition.0.is_empty() {
        return Err("no policy provided".into());
    }
    for key in KEYS.iter().filter(|key| key.operator || !operator) {
        match definition.get(key.name) {
            Some(value) if !key.values.allow(value) => return Err(format!("{}{}", term(value), key.fault)),
            _ => {}
        }
    }
    if !operator {
        check_upstreams(definition)?;
        check_mirroring(definition)?;
    }
    check_recognised(definition, operator)
}

impl Definition {
    /// The types of queues that know every key.
    pub(super) fn governed_types(&self) -> GovernedTypes {
        let known = |queue_type: QueueType| {
            self.iter().all(|(name, _)| KEYS.iter().any(|key| key.name == name && key.known.include(queue_type)))
        };
        GovernedTypes { classic: known(QueueType::Classic), quorum: known(QueueType::Quorum) }
    }
}

impl GovernedTypes {
    fn include(self, queue_type: QueueType) -> bool {
        match queue_type {
            QueueType::Classic => self.classic,
            QueueType::Quorum => self.quorum,
        }
    }
}

impl Values {
    fn allow(&self, value: &PolicyValue) -> bool {
        match (self, value) {
            (Values::From(least), PolicyValue::Number(number)) => number >= least,
            (Values::Between(least, most), PolicyValue::Number(number)) => (least..=most).contains(&number),
            (Values::AnyText, PolicyValue::Text(_)) | (Values::Mirroring, _) => true,
            (Values::OneOf(texts), PolicyValue::Text(text)) => texts.contains(&text.as_str()),
            (Values::Age, PolicyValue::Text(text)) => is_age(text),
            _ => false,
        }
    }
}

fn is_age(text: &str) -> bool {
    let number = text.strip_suffix(['Y', 'M', 'D', 'h', 'm', 's']).unwrap_or_default();
    !number.is_empty() && number.bytes().all(|octet| octet.is_ascii_digit())
}

fn check_upstreams(definition: &Definition) -> Result<(), String> {
    if UPSTREAM_KEYS.iter().filter(|key| definition.get(key).is_some()).count() > 1 {
        return Err(
            "cannot specify federation-upstream, federation-upstream-set or federation-upstream-pattern together"
                .into(),
        );
    }
    match definition.text("federation-upstream-pattern").map(|text| (text, Pattern::new(text))) {
        Some((text, Err(bad))) => {
            Err(format!("could not compile pattern {text} to a regular expression. Error: {}", in_one_line(&bad)))
        }
        _ => Ok(()),
    }
}

fn check_mirroring(definition: &Definition) -> Result<(), String> {
    let Some(mode) = definition.get("ha-mode") else {
        let has = MODE_KEYS.iter().any(|key| definition.get(key).is_some());
        return if has { Err(MODE_MISSING.into()) } else { Ok(()) };
    };
    check_mirrors(mode, definition.get("ha-params"))?;
    one_of(definition, "ha-sync-mode", ["manual", "automatic"])?;
    match definition.get("ha-sync-batch-size") {
        None | Some(PolicyValue::Number(1..)) => {}
        Some(other) => {
            return Err(format!("ha-sync-batch-size takes an integer greater than 0, {} given", term(other)));
        }
    }
    one_of(definition, "ha-promote-on-shutdown", ["always", "when-synced"])?;
    one_of(definition, "ha-promote-on-failure", ["always", "when-synced"])
}

/// How many mirrors, or where.
fn check_mirrors(mode: &PolicyValue, parameters: Option<&PolicyValue>) -> Result<(), String> {
    let mode = match mode {
        PolicyValue::Text(mode) => mode.as_str(),
        other => return Err(format!("{} is not a valid ha-mode value", term(other))),
    };
    let given = || parameters.map_or_else(|| "none".into(), term);
    match (mode, parameters) {
        ("all", None) => Ok(()),
        ("all", Some(_)) => Err("ha-mode=\"all\" does not take parameters".into()),
        ("exactly", Some(PolicyValue::Number(1..))) => Ok(()),
        ("exactly", _) => Err(format!("ha-mode=\"exactly\" takes an integer, {} given", given())),
        ("nodes", Some(PolicyValue::List(nodes))) if nodes.is_empty() => {
            Err("ha-mode=\"nodes\" list must be non-empty".into())
        }
        ("nodes", Some(PolicyValue::List(_))) => Ok(()),
        ("nodes", _) => Err(format!("ha-mode=\"nodes\" takes a list, {} given", given())),
        (other, _) => Err(format!("{} is not a valid ha-mode value", text_term(other))),
    }
}

fn one_of(definition: &Definition, key: &str, [one, other]: [&str; 2]) -> Result<(), String> {
    match definition.get(key) {
        None => Ok(()),
        Some(PolicyValue::Text(text)) if text == one || text == other => Ok(()),
        Some(value) => Err(format!("{key} must be \"{one}\" or \"{other}\", got {}", term(value))),
    }
}

fn check_recognised(definition: &Definition, operator: bool) -> Result<(), String> {
    let known = |name: &str| KEYS.iter().any(|key| key.name == name && (key.operator || !operator));
    let unknown: Vec<String> = definition
        .iter()
        .filter(|(name, _)| !known(name))
        .map(|(name, value)| format!("{{{},{}}}", text_term(name), term(value)))
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(format!("[{}] are not recognised policy settings", unknown.join(",")))
}

/// A value as Erlang prints it.
fn term(value: &PolicyValue) -> String {
    match value {
        PolicyValue::Number(number) => number.to_string(),
        PolicyValue::Flag(flag) => flag.to_string(),
        PolicyValue::Text(text) => text_term(text),
        PolicyValue::List(items) => {
            format!("[{}]", items.iter().map(|item| text_term(item)).collect::<Vec<_>>().join(","))
        }
    }
}

fn text_term(text: &str) -> String {
    if text.is_empty() {
        return "<<>>".into();
    }
    let mut out = String::from("<<\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            control if control.is_control() => {
                // Writing to a string does not fail.
                let _ = write!(out, "\\x{{{:x}}}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push_str(if text.is_ascii() { "\">>" } else { "\"/utf8>>" });
    out
}
