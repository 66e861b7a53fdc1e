//! A definitions file as the catalog's commands.

use proto::meta::command::Kind;
use proto::meta::policy_value::Kind as ValueKind;
use proto::meta::{self, Command, DestinationKind, PolicyItem, PolicyValue, set_limits};
use serde_json::Value;

use super::place::Place;
use super::{
    ARGON2ID, ARGON2ID_KEY, CLUSTER_NAME, DOCUMENT_MAX_BYTES, DefinitionsError, OPERATOR_POLICY, RABBIT_SHA256,
    VHOST_LIMITS, arguments,
};

/// What is stored of a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPassword {
    /// The algorithm's name.
    pub algorithm: String,
    /// The hash as text.
    pub hash: String,
}

/// Hashes a password that a file holds in clear text, with salt of its own; or says why not.
pub type PasswordHasher<'a> = dyn FnMut(&str) -> Result<StoredPassword, String> + 'a;

type Result<T, E = DefinitionsError> = std::result::Result<T, E>;

/// Commands that create what the file says, in RabbitMQ's order: users, vhosts, limits, permissions, topic permissions, exchanges, global
/// parameters, policies, parameters, queues, bindings. Keys that are not known are passed over, and of a key that comes twice the last counts. A
/// vhost's command to create it is followed by one to change it, for a vhost that exists.
pub fn parse(document: &[u8], hash_password: &mut PasswordHasher<'_>) -> Result<Vec<Command>> {
    if document.len() > DOCUMENT_MAX_BYTES {
        return Err(DefinitionsError::TooLong(document.len()));
    }
    let value: Value = serde_json::from_slice(document).map_err(|error| DefinitionsError::Syntax(error.to_string()))?;
    let top = Place::top(&value);
    top.object()?;
    let hashes_may_be_md5 = top.at("rabbit_version").is_some_and(|version| is_before_3_6(version.value));
    let mut commands = Vec::new();
    let mut limits = Vec::new();
    each(&top, "users", |user| {
        commands.push(Kind::PutUser(put_user(user, hashes_may_be_md5, hash_password)?));
        limits.extend(user_limits(user)?);
        Ok(())
    })?;
    each(&top, "vhosts", |vhost| {
        let create = create_vhost(vhost)?;
        let update = update_vhost(vhost, &create);
        commands.push(Kind::CreateVhost(create));
        commands.extend(update.map(Kind::UpdateVhost));
        Ok(())
    })?;
    let (mut policies, mut parameters) = (Vec::new(), Vec::new());
    each(&top, "policies", |policy| {
        policies.push(Kind::SetPolicy(set_policy(policy, policy, vhost_of(policy)?, false)?));
        Ok(())
    })?;
    each(&top, "parameters", |parameter| {
        match parameter.name_at("component")?.as_str() {
            VHOST_LIMITS => limits.push(vhost_limits(parameter)?),
            OPERATOR_POLICY => {
                let (value, vhost) = (parameter.must("value")?, vhost_of(parameter)?);
                policies.push(Kind::SetPolicy(set_policy(parameter, &value, vhost, true)?));
            }
            _ => parameters.push(Kind::SetParameter(set_parameter(parameter)?)),
        }
        Ok(())
    })?;
    commands.extend(limits.into_iter().map(Kind::SetLimits));
    each_kind(&top, "permissions", &mut commands, |place| Ok(Kind::SetPermissions(set_permissions(place)?)))?;
    each_kind(&top, "topic_permissions", &mut commands, |place| {
        Ok(Kind::SetTopicPermissions(set_topic_permissions(place)?))
    })?;
    each_kind(&top, "exchanges", &mut commands, |place| Ok(Kind::DeclareExchange(declare_exchange(place)?)))?;
    each_kind(&top, "global_parameters", &mut commands, global_parameter)?;
    commands.append(&mut policies);
    commands.append(&mut parameters);
    each_kind(&top, "queues", &mut commands, |place| Ok(Kind::DeclareQueue(declare_queue(place)?)))?;
    each_kind(&top, "bindings", &mut commands, |place| Ok(Kind::Bind(bind(place)?)))?;
    Ok(commands.into_iter().map(|kind| Command { kind: Some(kind) }).collect())
}

fn each(top: &Place<'_>, key: &str, mut work: impl FnMut(&Place<'_>) -> Result<()>) -> Result<()> {
    let Some(list) = top.at(key) else { return Ok(()) };
    for item in list.items()? {
        item.object()?;
        work(&item)?;
    }
    Ok(())
}

fn each_kind(
    top: &Place<'_>,
    key: &str,
    commands: &mut Vec<Kind>,
    kind: impl Fn(&Place<'_>) -> Result<Kind>,
) -> Result<()> {
    each(top, key, |item| {
        commands.push(kind(item)?);
        Ok(())
    })
}

fn vhost_of(item: &Place<'_>) -> Result<String> {
    match item.at("vhost") {
        Some(vhost) => vhost.name().map(str::to_owned),
        None => Err(DefinitionsError::SingleVhost { path: item.path() }),
    }
}

fn put_user(
    user: &Place<'_>,
    hashes_may_be_md5: bool,
    hash_password: &mut PasswordHasher<'_>,
) -> Result<meta::PutUser> {
    let name = user.name_at("name")?;
    let StoredPassword { algorithm, hash } = stored_password(user, hashes_may_be_md5, hash_password)?;
    let tags = user.at("tags").map_or(Ok(Vec::new()), |tags| list_of_tags(&tags))?;
    Ok(meta::PutUser { name, password_hash: hash, hashing_algorithm: algorithm, tags })
}

fn stored_password(
    user: &Place<'_>,
    hashes_may_be_md5: bool,
    hash_password: &mut PasswordHasher<'_>,
) -> Result<StoredPassword> {
    if let Some(hash) = user.text_at(ARGON2ID_KEY)? {
        return Ok(StoredPassword { algorithm: ARGON2ID.into(), hash });
    }
    let hash = user.text_at("password_hash")?;
    if let Some(place) = user.at("password") {
        if hash.is_some() {
            return Err(user.wrong("holds a password and a password_hash; one of them must go"));
        }
        let password = place.text()?;
        return hash_password(password).map_err(|why| place.wrong(format!("the password cannot be used: {why}")));
    }
    let hash = hash.unwrap_or_default();
    let algorithm = user.text_at("hashing_algorithm")?;
    if hash.is_empty() {
        return Ok(StoredPassword { algorithm: String::new(), hash });
    }
    match algorithm.as_deref() {
        None if hashes_may_be_md5 => Err(user.wrong(
            "password hashes of RabbitMQ before 3.6 are MD5, which is not accepted: give the user a 'password' instead",
        )),
        Some("rabbit_password_hashing_md5") => Err(user.inside("hashing_algorithm", user.value).wrong(
            "rabbit_password_hashing_md5 is not accepted, as MD5 is quickly guessed: give the user a 'password' instead",
        )),
        None | Some(RABBIT_SHA256 | "rabbit_password_hashing_sha512" | ARGON2ID) => {
            Ok(StoredPassword { algorithm: algorithm.unwrap_or_else(|| RABBIT_SHA256.into()), hash })
        }
        Some(other) => Err(user.inside("hashing_algorithm", user.value).wrong(format!(
            "'{other}' is not known; known are {RABBIT_SHA256}, rabbit_password_hashing_sha512 and {ARGON2ID}"
        ))),
    }
}

/// A list, or names with commas between them.
fn list_of_tags(tags: &Place<'_>) -> Result<Vec<String>> {
    if let Value::String(text) = tags.value {
        return Ok(text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect());
    }
    tags.items()?.map(|tag| tag.name().map(str::to_owned)).collect()
}

fn user_limits(user: &Place<'_>) -> Result<Option<meta::SetLimits>> {
    let Some(limits) = user.at("limits") else { return Ok(None) };
    let name = user.name_at("name")?;
    limits_of(&limits, set_limits::Of::User(name)).map(Some)
}

fn vhost_limits(parameter: &Place<'_>) -> Result<meta::SetLimits> {
    limits_of(&parameter.must("value")?, set_limits::Of::Vhost(vhost_of(parameter)?))
}

fn limits_of(limits: &Place<'_>, of: set_limits::Of) -> Result<meta::SetLimits> {
    let mut command = meta::SetLimits { of: Some(of), ..meta::SetLimits::default() };
    // RabbitMQ writes an empty object as an empty list here and there.
    if limits.value.as_array().is_some_and(Vec::is_empty) {
        return Ok(command);
    }
    let is_of_a_user = matches!(command.of, Some(set_limits::Of::User(_)));
    for (key, value) in limits.object()? {
        let place = limits.inside(key, value);
        match key.as_str() {
            "max-connections" => command.max_connections = Some(place.integer()?),
            "max-queues" if !is_of_a_user => command.max_queues = Some(place.integer()?),
            "max-channels" if is_of_a_user => command.max_channels = Some(place.integer()?),
            _ => return Err(place.wrong("there is no such limit here")),
        }
    }
    Ok(command)
}

fn create_vhost(vhost: &Place<'_>) -> Result<meta::CreateVhost> {
    let metadata = vhost.at("metadata");
    let said = |key| vhost.at(key).or_else(|| metadata.as_ref().and_then(|metadata| metadata.at(key)));
    let text = |key| said(key).map_or(Ok(String::new()), |place| place.text().map(str::to_owned));
    Ok(meta::CreateVhost {
        name: vhost.name_at("name")?,
        description: text("description")?,
        tags: said("tags").map_or(Ok(Vec::new()), |tags| list_of_tags(&tags))?,
        // Where the type is not set, RabbitMQ of some versions writes this.
        default_queue_type: Some(text("default_queue_type")?).filter(|kind| kind != "undefined").unwrap_or_default(),
        vhosts_max: 0,
    })
}

/// What is to be changed in a vhost that exists, if the file says anything about it.
fn update_vhost(vhost: &Place<'_>, create: &meta::CreateVhost) -> Option<meta::UpdateVhost> {
    let metadata = vhost.at("metadata");
    let says = |key| vhost.at(key).is_some() || metadata.as_ref().is_some_and(|metadata| metadata.at(key).is_some());
    let update = meta::UpdateVhost {
        name: create.name.clone(),
        description: says("description").then(|| create.description.clone()),
        tags: says("tags").then(|| meta::Tags { tags: create.tags.clone() }),
        default_queue_type: (!create.default_queue_type.is_empty()).then(|| create.default_queue_type.clone()),
        tracing: None,
    };
    let changes = update.description.is_some() || update.tags.is_some() || update.default_queue_type.is_some();
    changes.then_some(update)
}

fn set_permissions(place: &Place<'_>) -> Result<meta::SetPermissions> {
    Ok(meta::SetPermissions {
        user: place.name_at("user")?,
        vhost: vhost_of(place)?,
        configure: place.must("configure")?.text()?.into(),
        write: place.must("write")?.text()?.into(),
        read: place.must("read")?.text()?.into(),
    })
}

fn set_topic_permissions(place: &Place<'_>) -> Result<meta::SetTopicPermissions> {
    Ok(meta::SetTopicPermissions {
        user: place.name_at("user")?,
        vhost: vhost_of(place)?,
        exchange: place.name_at("exchange")?,
        write: place.must("write")?.text()?.into(),
        read: place.must("read")?.text()?.into(),
    })
}

fn declare_exchange(place: &Place<'_>) -> Result<meta::DeclareExchange> {
    Ok(meta::DeclareExchange {
        vhost: vhost_of(place)?,
        name: place.name_at("name")?,
        r#type: place.name_at("type")?,
        durable: place.must("durable")?.flag()?,
        auto_delete: place.must("auto_delete")?.flag()?,
        internal: place.at("internal").map_or(Ok(false), |internal| internal.flag())?,
        arguments: arguments_of(place)?,
        holder: 0,
    })
}

fn global_parameter(place: &Place<'_>) -> Result<Kind> {
    let (name, value) = (place.name_at("name")?, place.must("value")?);
    if name == CLUSTER_NAME {
        return Ok(Kind::SetClusterName(meta::SetClusterName { name: value.name()?.into() }));
    }
    let value = value.value.to_string();
    Ok(Kind::SetParameter(meta::SetParameter { vhost: String::new(), component: String::new(), name, value }))
}

fn set_parameter(place: &Place<'_>) -> Result<meta::SetParameter> {
    Ok(meta::SetParameter {
        vhost: vhost_of(place)?,
        component: place.name_at("component")?,
        name: place.name_at("name")?,
        value: place.must("value")?.value.to_string(),
    })
}

/// `item` has the name, `policy` the rest; they differ in operator policies.
fn set_policy(item: &Place<'_>, policy: &Place<'_>, vhost: String, operator: bool) -> Result<meta::SetPolicy> {
    let definition = policy.must("definition")?;
    let mut fields: Vec<(&String, &Value)> = definition.object()?.iter().collect();
    fields.sort_by_key(|(key, _)| *key);
    let definition = fields
        .into_iter()
        .map(|(key, value)| {
            Ok(PolicyItem { key: key.clone(), value: Some(policy_value(&definition.inside(key, value))?) })
        })
        .collect::<Result<_>>()?;
    Ok(meta::SetPolicy {
        vhost,
        name: item.name_at("name")?,
        operator,
        pattern: policy.must("pattern")?.text()?.into(),
        apply_to: policy.text_at("apply-to")?.unwrap_or_else(|| "all".into()),
        priority: policy.at("priority").map_or(Ok(0), |priority| priority.integer())?,
        definition,
    })
}

fn policy_value(place: &Place<'_>) -> Result<PolicyValue> {
    let kind = match place.value {
        Value::Bool(flag) => ValueKind::Flag(*flag),
        Value::String(text) => ValueKind::Text(text.clone()),
        Value::Array(_) => {
            let items = place.items()?.map(|item| item.text().map(str::to_owned)).collect::<Result<_>>()?;
            ValueKind::List(meta::TextList { items })
        }
        _ => ValueKind::Number(place.integer()?),
    };
    Ok(PolicyValue { kind: Some(kind) })
}

fn declare_queue(place: &Place<'_>) -> Result<meta::DeclareQueue> {
    Ok(meta::DeclareQueue {
        vhost: vhost_of(place)?,
        name: place.name_at("name")?,
        durable: place.must("durable")?.flag()?,
        auto_delete: place.must("auto_delete")?.flag()?,
        exclusive_owner: None,
        arguments: arguments_of(place)?,
        // Whoever imports says on which node.
        node: 0,
    })
}

fn bind(place: &Place<'_>) -> Result<meta::Bind> {
    let kind = place.must("destination_type")?;
    let destination_kind = match kind.text()? {
        "queue" => DestinationKind::Queue,
        "exchange" => DestinationKind::Exchange,
        other => return Err(kind.wrong(format!("'{other}' is neither queue nor exchange"))),
    };
    let key = place.must("routing_key")?;
    let routing_key = arguments::octets_of(key.text()?);
    if routing_key.len() > super::NAME_MAX_BYTES {
        return Err(key.wrong(format!("is {} octets long, of at most {}", routing_key.len(), super::NAME_MAX_BYTES)));
    }
    Ok(meta::Bind {
        vhost: vhost_of(place)?,
        source: place.name_at("source")?,
        destination_kind: destination_kind.into(),
        destination: place.name_at("destination")?,
        routing_key,
        arguments: arguments_of(place)?,
    })
}

fn arguments_of(place: &Place<'_>) -> Result<Vec<u8>> {
    place.at("arguments").map_or(Ok(Vec::new()), |arguments| arguments::encode(&arguments))
}

/// Whether a version is one that hashed with MD5 and did not say so.
fn is_before_3_6(version: &Value) -> bool {
    let mut parts = version.as_str().unwrap_or_default().split('.').map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) < (3, 6),
        _ => false,
    }
}
