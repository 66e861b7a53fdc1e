//! Settings from environment variables: RABBITMQ_* as in RabbitMQ's official image, and BROKER__SECTION__KEY.
//!
//! An empty variable counts as unset. `BROKER__DISK_FREE_LIMIT__ABSOLUTE` is the key `disk_free_limit.absolute`, and
//! `BROKER__SHARDS` is `broker.shards`: two underscores are a dot, letters become small, and `broker.` is put in front
//! of what is no key without it. A variable ending in `_FILE` names a file that holds the value.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::document::{escaped_segment, segments, shortened};
use super::error::{Complaint, Origin};
use super::keys::KEYS;
use super::known;

/// The environment variables of the process, or those a test makes up.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// The variables of this process; those that are not UTF-8 are left out.
    #[must_use]
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// The value of `name` unless it is unset or empty.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Adds the lines `NAME=value` of a `rabbitmq-env.conf`; what is set already wins, as in RabbitMQ.
    ///
    /// That file is a shell script; only plain assignments are understood, each other line is a complaint.
    pub(super) fn add_file(&mut self, path: &Path, text: &str, warnings: &mut Vec<Complaint>) {
        let path = std::sync::Arc::new(path.to_path_buf());
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            let line = line.strip_prefix("export ").unwrap_or(line);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, value)) = assignment(line) else {
                let origin = Origin::File { path: path.clone(), line: index + 1 };
                warnings.push(Complaint::new(&origin, "ignored: only lines NAME=value are understood in this file"));
                continue;
            };
            let name = if name.starts_with("RABBITMQ_") { name.to_string() } else { format!("RABBITMQ_{name}") };
            self.variables.entry(name).or_insert_with(|| value.to_string());
        }
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self { variables: pairs.into_iter().collect() }
    }
}

/// A setting a variable makes.
pub(super) struct Variable {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The variable.
    pub origin: Origin,
}

/// RabbitMQ's variables that are a key by another name.
const NAMED: &[(&str, &str)] = &[
    ("RABBITMQ_DEFAULT_USER", "default_user"),
    ("RABBITMQ_DEFAULT_PASS", "default_pass"),
    ("RABBITMQ_DEFAULT_VHOST", "default_vhost"),
    ("RABBITMQ_NODENAME", "broker.node_name"),
    ("RABBITMQ_MNESIA_DIR", "broker.data_dir"),
    ("RABBITMQ_LOG_BASE", "log.dir"),
    ("RABBITMQ_DIST_PORT", "cluster.listener.port"),
];

/// RabbitMQ's variables that change something there and nothing here.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("RABBITMQ_ERLANG_COOKIE", "nodes know each other by the secret in the file that cluster.secret_file names"),
    ("RABBITMQ_SERVER_ERL_ARGS", "there is no Erlang virtual machine here"),
    ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "there is no Erlang virtual machine here"),
    ("RABBITMQ_SERVER_START_ARGS", "there is no Erlang virtual machine here"),
    ("RABBITMQ_IO_THREAD_POOL_SIZE", "there is no Erlang virtual machine here"),
    ("RABBITMQ_ENABLED_PLUGINS_FILE", "there are no plugins here"),
    ("RABBITMQ_PLUGINS_DIR", "there are no plugins here"),
    ("RABBITMQ_FEATURE_FLAGS", "there are no feature flags here"),
];

/// The settings `environment` makes, in no order that matters: no two make the same key.
pub(super) fn settings(
    environment: &Environment,
    errors: &mut Vec<Complaint>,
    warnings: &mut Vec<Complaint>,
) -> Vec<Variable> {
    let mut found = Vec::new();
    for (name, key) in NAMED {
        found.extend(named(environment, name, key, errors));
    }
    found.extend(listener(environment));
    found.extend(data_dir_below_base(environment));
    found.extend(logs(environment, warnings));
    for (name, reason) in WITHOUT_EFFECT {
        if environment.value(name).is_some() {
            warnings.push(Complaint::new(&Origin::Environment((*name).into()), format!("ignored: {reason}")));
        }
    }
    for (name, value) in &environment.variables {
        if let Some(path) = name.strip_prefix("BROKER__").filter(|_| !value.is_empty()) {
            found.extend(sectioned(name, path, value, errors));
        }
    }
    found
}

fn named(environment: &Environment, name: &str, key: &str, errors: &mut Vec<Complaint>) -> Option<Variable> {
    let from_file = format!("{name}_FILE");
    if let Some(value) = environment.value(name) {
        return Some(variable(key, value, name));
    }
    let path = environment.value(&from_file)?;
    let origin = Origin::Environment(from_file);
    let value = read_value(path).map_err(|text| errors.push(Complaint::new(&origin, text))).ok()?;
    Some(Variable { key: key.into(), value, origin })
}

fn variable(key: &str, value: &str, name: &str) -> Variable {
    Variable { key: key.into(), value: value.into(), origin: Origin::Environment(name.into()) }
}

fn listener(environment: &Environment) -> Option<Variable> {
    let port = environment.value("RABBITMQ_NODE_PORT");
    let ip = environment.value("RABBITMQ_NODE_IP_ADDRESS").filter(|ip| *ip != "auto");
    let name = if port.is_some() { "RABBITMQ_NODE_PORT" } else { "RABBITMQ_NODE_IP_ADDRESS" };
    let default_port = super::DEFAULT_AMQP_PORT.to_string();
    let address = match (ip, port) {
        (None, None) => return None,
        (None, Some(port)) => port.to_string(),
        (Some(ip), port) => format!("{ip}:{}", port.unwrap_or(&default_port)),
    };
    Some(variable("listeners.tcp.default", &address, name))
}

/// RABBITMQ_MNESIA_BASE holds a directory a node, named after it.
fn data_dir_below_base(environment: &Environment) -> Option<Variable> {
    if environment.value("RABBITMQ_MNESIA_DIR").is_some() {
        return None;
    }
    let base = environment.value("RABBITMQ_MNESIA_BASE")?;
    let node = environment.value("RABBITMQ_NODENAME").map_or_else(default_node_name, str::to_string);
    let path = PathBuf::from(base).join(node);
    Some(variable("broker.data_dir", &path.to_string_lossy(), "RABBITMQ_MNESIA_BASE"))
}

fn logs(environment: &Environment, warnings: &mut Vec<Complaint>) -> Vec<Variable> {
    let mut found = Vec::new();
    match environment.value("RABBITMQ_LOGS") {
        Some("-") => {
            found.push(variable("log.console", "true", "RABBITMQ_LOGS"));
            found.push(variable("log.file", "false", "RABBITMQ_LOGS"));
        }
        Some(path) => found.push(variable("log.file", path, "RABBITMQ_LOGS")),
        None => {}
    }
    for word in environment.value("RABBITMQ_LOG").unwrap_or("").split(',').filter(|word| !word.is_empty()) {
        if word.contains(['=', '.', '+', '-']) {
            let text = format!("ignored: '{}': log categories and colours do not exist here", shortened(word));
            warnings.push(Complaint::new(&Origin::Environment("RABBITMQ_LOG".into()), text));
        } else {
            found.push(variable("log.console.level", word, "RABBITMQ_LOG"));
            found.push(variable("log.file.level", word, "RABBITMQ_LOG"));
        }
    }
    found
}

fn sectioned(name: &str, path: &str, value: &str, errors: &mut Vec<Complaint>) -> Option<Variable> {
    let origin = Origin::Environment(name.into());
    let (key, from_file) = key_of(path);
    let value = if from_file {
        read_value(value).map_err(|text| errors.push(Complaint::new(&origin, text))).ok()?
    } else {
        value.to_string()
    };
    Some(Variable { key, value, origin })
}

/// The key a `BROKER__` variable means and whether its value is the name of a file.
fn key_of(path: &str) -> (String, bool) {
    let lowered = path.to_lowercase();
    let plain = dotted(&lowered);
    if is_key(&plain) {
        return (plain, false);
    }
    let own = format!("broker.{plain}");
    if is_key(&own) {
        return (own, false);
    }
    match lowered.strip_suffix("_file").map(dotted) {
        Some(named) if is_key(&named) => (named, true),
        _ => (plain, false),
    }
}

fn dotted(path: &str) -> String {
    path.split("__").map(escaped_segment).collect::<Vec<_>>().join(".")
}

fn is_key(key: &str) -> bool {
    let segments = segments(key);
    KEYS.iter().any(|ours| known::matches(ours.name, &segments)) || known::ignored(&segments).is_some()
}

/// The text of the file `path` without a final line break.
fn read_value(path: &str) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    if metadata.len() > super::files::MAX_FILE_BYTES {
        return Err(format!("{path} is larger than {} bytes", super::files::MAX_FILE_BYTES));
    }
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    Ok(text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text)).to_string())
}

/// `NAME` and `value` of a plain assignment, quotes around the value removed.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let quoted = |quote| value.strip_prefix(quote).and_then(|inner: &str| inner.strip_suffix(quote));
    let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
    (is_name && !value.contains(['$', '`', '"', '\''])).then_some((name, value))
}

/// `rabbit@` and the host's name up to its first dot.
pub(super) fn default_node_name() -> String {
    let uname = rustix::system::uname();
    let host = uname.nodename().to_string_lossy();
    let short = host.split('.').next().filter(|short| !short.is_empty()).unwrap_or("localhost");
    format!("rabbit@{short}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn made(pairs: &[(&str, &str)]) -> (Vec<(String, String)>, Vec<Complaint>, Vec<Complaint>) {
        let environment = pairs.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect();
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        let found = settings(&environment, &mut errors, &mut warnings);
        (found.into_iter().map(|variable| (variable.key, variable.value)).collect(), errors, warnings)
    }

    fn one(name: &str, value: &str) -> Vec<(String, String)> {
        made(&[(name, value)]).0
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    #[test]
    fn the_official_images_variables_are_keys() {
        assert_eq!(one("RABBITMQ_DEFAULT_USER", "ann"), [pair("default_user", "ann")]);
        assert_eq!(one("RABBITMQ_NODE_PORT", "5673"), [pair("listeners.tcp.default", "5673")]);
        assert_eq!(one("RABBITMQ_NODE_IP_ADDRESS", "::1"), [pair("listeners.tcp.default", "::1:5672")]);
        assert_eq!(one("RABBITMQ_DEFAULT_USER", ""), []);
        assert_eq!(one("RABBITMQ_DIST_PORT", "25673"), [pair("cluster.listener.port", "25673")]);
        assert_eq!(one("RABBITMQ_LOGS", "-"), [pair("log.console", "true"), pair("log.file", "false")]);
        let base = made(&[("RABBITMQ_MNESIA_BASE", "/var"), ("RABBITMQ_NODENAME", "a@b")]).0;
        assert!(base.contains(&pair("broker.data_dir", "/var/a@b")));
    }

    #[test]
    fn sections_are_dots_and_own_keys_need_no_prefix() {
        assert_eq!(one("BROKER__HEARTBEAT", "5"), [pair("heartbeat", "5")]);
        assert_eq!(one("BROKER__DISK_FREE_LIMIT__ABSOLUTE", "1GB"), [pair("disk_free_limit.absolute", "1GB")]);
        assert_eq!(one("BROKER__SHARDS", "2"), [pair("broker.shards", "2")]);
        assert_eq!(one("BROKER__HEARTBAT", "5"), [pair("heartbat", "5")]);
        assert_eq!(one("BROKER__CLUSTER__SECRET_FILE", "/s"), [pair("cluster.secret_file", "/s")]);
    }

    #[test]
    fn a_file_variable_reads_the_value_without_its_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "s3cret\n").unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(one("RABBITMQ_DEFAULT_PASS_FILE", path), [pair("default_pass", "s3cret")]);
        assert_eq!(one("BROKER__DEFAULT_PASS_FILE", path), [pair("default_pass", "s3cret")]);
        let (found, errors, _) = made(&[("RABBITMQ_DEFAULT_PASS_FILE", "/nowhere/at/all")]);
        assert!(found.is_empty());
        assert!(errors[0].to_string().contains("RABBITMQ_DEFAULT_PASS_FILE: cannot read /nowhere/at/all"));
    }

    #[test]
    fn an_env_file_adds_what_is_not_set() {
        let mut environment: Environment = [("RABBITMQ_NODENAME".to_string(), "a@b".to_string())].into_iter().collect();
        let mut warnings = Vec::new();
        let text = "# c\nNODENAME=x@y\nexport RABBITMQ_NODE_PORT=\"5674\"\nif true; then\nA=$(date)\n";
        environment.add_file(Path::new("/etc/e.conf"), text, &mut warnings);
        assert_eq!(environment.value("RABBITMQ_NODENAME"), Some("a@b"));
        assert_eq!(environment.value("RABBITMQ_NODE_PORT"), Some("5674"));
        let lines: Vec<_> = warnings.iter().map(|warning| warning.origin.to_string()).collect();
        assert_eq!(lines, ["/etc/e.conf:4", "/etc/e.conf:5"]);
    }

    #[test]
    fn variables_without_effect_warn() {
        let (_, _, warnings) = made(&[("RABBITMQ_ERLANG_COOKIE", "x")]);
        assert_eq!(
            warnings[0].to_string(),
            "environment variable RABBITMQ_ERLANG_COOKIE: ignored: nodes know each other by the secret in the file that \
             cluster.secret_file names"
        );
    }
}
