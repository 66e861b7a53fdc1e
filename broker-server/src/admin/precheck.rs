//! Whether what a change names is there, asked before it is proposed, so that an operator hears what is missing and not only that nothing changed.

use broker_core::refusal::Refusal;
use broker_meta::{Catalog, Command};
use proto::admin::v1::{Outcome, Reason};
use proto::meta::command::Kind;
use proto::meta::set_limits;

/// A refusal for the first thing that is missing, or is there and must not be.
pub fn precheck(catalog: &Catalog, command: &Command, must_be_new: bool) -> Result<(), Outcome> {
    let vhost = |name: &str| match catalog.topology().vhost(name) {
        Some(_) => Ok(()),
        None => Err(refused(Reason::NoSuchVhost, format!("vhost '{name}' does not exist"))),
    };
    let user = |name: &str| match catalog.access().user(name) {
        Some(_) => Ok(()),
        None => Err(refused(Reason::NoSuchUser, format!("user '{name}' does not exist"))),
    };
    match &command.kind {
        Some(Kind::CreateVhost(one)) => match catalog.topology().vhost(&one.name) {
            Some(_) if must_be_new => Err(refused(Reason::Exists, format!("vhost '{}' exists", one.name))),
            _ => Ok(()),
        },
        Some(Kind::DeleteVhost(one)) => vhost(&one.name),
        Some(Kind::UpdateVhost(one)) => vhost(&one.name),
        Some(Kind::DeleteUser(one)) => user(&one.name),
        Some(Kind::SetPermissions(one)) => vhost(&one.vhost).and_then(|()| user(&one.user)),
        Some(Kind::ClearPermissions(one)) => vhost(&one.vhost).and_then(|()| user(&one.user)),
        Some(Kind::SetTopicPermissions(one)) => vhost(&one.vhost).and_then(|()| user(&one.user)),
        Some(Kind::ClearTopicPermissions(one)) => vhost(&one.vhost).and_then(|()| user(&one.user)),
        Some(Kind::SetLimits(one)) => match &one.of {
            Some(set_limits::Of::Vhost(name)) => vhost(name),
            Some(set_limits::Of::User(name)) => user(name),
            None => Err(refused(Reason::Invalid, "limits of neither a vhost nor a user".into())),
        },
        Some(Kind::SetPolicy(one)) => vhost(&one.vhost),
        Some(Kind::ClearPolicy(one)) => vhost(&one.vhost),
        Some(Kind::SetParameter(one)) if !one.component.is_empty() => vhost(&one.vhost),
        Some(Kind::ClearParameter(one)) if !one.component.is_empty() => vhost(&one.vhost),
        // Those of nodes that start, join or leave are not an operator's, nor are deletions that pass a queue's messages by.
        Some(
            Kind::EndTransient(_)
            | Kind::AddMember(_)
            | Kind::RemoveMember(_)
            | Kind::Import(_)
            | Kind::DeleteQueue(_)
            | Kind::DeleteQueues(_)
            | Kind::PutUser(_),
        )
        | None => Err(refused(Reason::Invalid, "this change has a request of its own".into())),
        Some(_) => Ok(()),
    }
}

/// What the catalog said of a command.
pub fn outcome(outcome: Result<bool, Refusal>) -> Outcome {
    match outcome {
        Ok(changed) => Outcome { changed, ..Outcome::default() },
        Err(refusal) => refused(reason_of(&refusal), refusal.to_string()),
    }
}

/// An outcome that says why not.
pub fn refused(reason: Reason, text: String) -> Outcome {
    Outcome { changed: false, reason: reason.into(), text }
}

fn reason_of(refusal: &Refusal) -> Reason {
    match refusal {
        Refusal::NoVhost(_) => Reason::NoSuchVhost,
        Refusal::NotFound(_) => Reason::NotFound,
        Refusal::Inequivalent { .. } | Refusal::InUse(_) | Refusal::NotEmpty(..) | Refusal::Locked(..) => {
            Reason::Conflict
        }
        _ => Reason::Invalid,
    }
}
