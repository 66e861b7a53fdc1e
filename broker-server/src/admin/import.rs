//! Commands of a definitions file, carried out one after the other.
//!
//! An import merges: what is there and cannot be changed stays as it is, which is said; users, permissions, policies and parameters are overwritten.
//! A document of which a command would be refused for another reason is not imported at all: it is tried on a copy of the catalog first. (RabbitMQ
//! keeps what it did before the mistake.) Importing again is harmless.

use broker_core::access::PasswordHash;
use broker_core::refusal::Refusal;
use broker_meta::{Catalog, CatalogEvent, Command};
use broker_mgmt::definitions::{self, StoredPassword, describe};
use proto::meta::command::Kind;
use rustix::rand::{GetRandomFlags, getrandom};

use broker_core::name::NodeId;

/// Commands proposed together.
pub const TOGETHER: usize = 256;
/// So many things that stay as they are, are named.
const KEPT_NAMED_MAX: usize = 20;

/// What one command came to: whether it changed anything, or why it was refused.
pub type Outcome = Result<bool, Refusal>;

/// Carries out commands and says what each came to; an error if the catalog cannot be reached at all.
pub type Propose<'a> = dyn FnMut(Vec<Command>) -> Result<Vec<Outcome>, String> + 'a;

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Commands carried out.
    pub commands: usize,
    /// Of these, those that changed something.
    pub changes: usize,
    /// What was left as it is, with the reason: the first few of them.
    pub kept: Vec<String>,
    /// How many were left as they are.
    pub kept_count: usize,
}

/// Reads a document. Passwords in clear text are hashed, which takes tens of milliseconds each.
pub fn read(document: &[u8]) -> Result<Vec<Command>, String> {
    definitions::parse(document, &mut hash_password).map_err(|error| error.to_string())
}

/// Makes the commands of a document ready to be carried out and tries them on a copy of the catalog. What they do there stays, so that the commands
/// of a document after this one can be tried on it too.
pub fn rehearse(commands: Vec<Command>, copy: &mut Catalog, node: NodeId) -> Result<Vec<Command>, String> {
    let before = copy.topology();
    let is_due = |command: &Command| match &command.kind {
        // A new vhost needs no change after it was created.
        Some(Kind::UpdateVhost(update)) => before.vhost(&update.name).is_some(),
        _ => true,
    };
    let mut commands: Vec<Command> = commands.into_iter().filter(is_due).collect();
    commands.iter_mut().for_each(|command| place_queue(command, node));
    for command in &commands {
        if let Err(refusal) = outcome_of(&copy.apply(copy.index() + 1, command))
            && !stays(command, &refusal)
        {
            return Err(format!("{}: {refusal}. Nothing was imported; correct it and import again", describe(command)));
        }
    }
    Ok(commands)
}

/// Carries out what was rehearsed.
pub fn import(commands: &[Command], propose: &mut Propose<'_>) -> Result<Imported, String> {
    let mut imported = Imported::default();
    for together in commands.chunks(TOGETHER) {
        let outcomes = propose(together.to_vec())?;
        for (command, outcome) in together.iter().zip(outcomes) {
            match outcome {
                Ok(changed) => imported.changes += usize::from(changed),
                Err(refusal) if stays(command, &refusal) => imported.keep(command, &refusal),
                Err(refusal) => {
                    return Err(format!(
                        "{}: {refusal}. Somebody else has changed the catalog meanwhile, and a part was imported; import again",
                        describe(command)
                    ));
                }
            }
            imported.commands += 1;
        }
    }
    Ok(imported)
}

/// What the catalog's events say about a command.
pub fn outcome_of(events: &[CatalogEvent]) -> Outcome {
    match events.first() {
        Some(CatalogEvent::Refused(refusal)) => Err(refusal.clone()),
        _ => Ok(events.iter().any(CatalogEvent::is_change)),
    }
}

/// A new hash of a password, with random salt.
pub fn hash_password(password: &str) -> Result<StoredPassword, String> {
    let mut salt = [0; 16];
    getrandom(&mut salt, GetRandomFlags::empty()).map_err(|error| format!("no random numbers: {error}"))?;
    // RabbitMQ refuses logins with an empty password whatever is stored.
    if password.is_empty() {
        return Err("it is empty".into());
    }
    let hash = PasswordHash::argon2id(password.as_bytes(), &salt).map_err(|_| "it is too long".to_owned())?;
    Ok(StoredPassword { algorithm: hash.algorithm().into(), hash: hash.text() })
}

impl Imported {
    fn keep(&mut self, command: &Command, refusal: &Refusal) {
        self.kept_count += 1;
        if self.kept.len() < KEPT_NAMED_MAX {
            self.kept.push(format!("{}: {refusal}", describe(command)));
        }
    }
}

fn place_queue(command: &mut Command, node: NodeId) {
    if let Some(Kind::DeclareQueue(queue)) = &mut command.kind {
        queue.node = node.0;
    }
}

/// Whether a refusal means that something stays as it is: it exists and is otherwise, or a binding has lost one of its ends.
fn stays(command: &Command, refusal: &Refusal) -> bool {
    match &command.kind {
        Some(Kind::DeclareExchange(_) | Kind::DeclareQueue(_)) => {
            matches!(refusal, Refusal::Inequivalent { .. } | Refusal::Locked(..))
        }
        Some(Kind::Bind(_)) => matches!(refusal, Refusal::NotFound(_)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use broker_meta::Catalog;

    use super::*;

    const NODE: NodeId = NodeId(3);

    fn import_into(catalog: &mut Catalog, document: &str) -> Result<Imported, String> {
        let commands = rehearse(read(document.as_bytes())?, &mut catalog.clone(), NODE)?;
        let mut propose = |commands: Vec<Command>| {
            let outcomes = commands.iter().map(|command| outcome_of(&catalog.apply(catalog.index() + 1, command)));
            Ok(outcomes.collect())
        };
        import(&commands, &mut propose)
    }

    const FILE: &str = r#"{
        "users": [{"name": "u", "password": "p", "tags": ["administrator"]}],
        "vhosts": [{"name": "v", "description": "d"}],
        "permissions": [{"user": "u", "vhost": "v", "configure": ".*", "write": ".*", "read": ".*"}],
        "exchanges": [{"name": "e", "vhost": "v", "type": "topic", "durable": true, "auto_delete": false}],
        "queues": [{"name": "q", "vhost": "v", "durable": true, "auto_delete": false, "arguments": {"x-custom": 1}}],
        "bindings": [{"vhost": "v", "source": "e", "destination": "q", "destination_type": "queue", "routing_key": "k"}]
    }"#;

    #[test]
    fn everything_is_created_once() {
        let mut catalog = Catalog::default();
        let imported = import_into(&mut catalog, FILE).unwrap();
        assert_eq!((imported.commands, imported.changes, imported.kept_count), (6, 6, 0));
        let topology = catalog.topology();
        assert_eq!(topology.queue("v", "q").unwrap().node, NODE);
        assert_eq!(topology.vhost("v").unwrap().bindings().count(), 1);
        let hash = catalog.access().user("u").unwrap().password.clone().unwrap();
        assert!(hash.matches(b"p"));
    }

    #[test]
    fn what_is_otherwise_stays_as_it_is() {
        let mut catalog = Catalog::default();
        import_into(&mut catalog, FILE).unwrap();
        let other = r#"{"queues": [{"name": "q", "vhost": "v", "durable": false, "auto_delete": false}],
            "bindings": [{"vhost": "v", "source": "gone", "destination": "q", "destination_type": "queue", "routing_key": ""}]}"#;
        let imported = import_into(&mut catalog, other).unwrap();
        assert_eq!((imported.changes, imported.kept_count), (0, 2));
        assert!(imported.kept[0].starts_with("queue 'q' in vhost 'v': inequivalent arg 'durable'"), "{imported:?}");
        assert!(catalog.topology().queue("v", "q").unwrap().durable);
    }

    #[test]
    fn a_refusal_is_named_and_nothing_is_imported() {
        let mut catalog = Catalog::default();
        let document = r#"{"users": [
            {"name": "before", "password_hash": ""},
            {"name": "u", "password_hash": "AAAA", "hashing_algorithm": "rabbit_password_hashing_sha256"},
            {"name": "after", "password_hash": ""}]}"#;
        let error = import_into(&mut catalog, document).unwrap_err();
        assert!(error.starts_with("user 'u': not a password hash"), "{error}");
        let document = r#"{"vhosts": [{"name": "v"}], "queues": [
            {"name": "q", "vhost": "v", "durable": true, "auto_delete": false},
            {"name": "q", "vhost": "none", "durable": true, "auto_delete": false}]}"#;
        let error = import_into(&mut catalog, document).unwrap_err();
        assert_eq!(
            error,
            "queue 'q' in vhost 'none': vhost none not found. Nothing was imported; correct it and import again"
        );
        assert!(catalog.is_empty() && catalog.index() == 0);
    }

    #[test]
    fn what_others_change_while_an_import_runs_is_said() {
        let commands = rehearse(read(FILE.as_bytes()).unwrap(), &mut Catalog::default(), NODE).unwrap();
        let refusal = Refusal::Command("gone".into());
        let error = import(&commands, &mut |commands| Ok(vec![Err(refusal.clone()); commands.len()])).unwrap_err();
        assert!(error.starts_with("user 'u': gone. Somebody else"), "{error}");
    }
}
