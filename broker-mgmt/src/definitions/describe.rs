//! Commands in words, for what is said of an import.

use proto::meta::command::Kind;
use proto::meta::{Command, set_limits};

/// What a command is about: `queue 'orders' in vhost '/'`.
pub fn describe(command: &Command) -> String {
    let in_vhost = |what: &str, name: &str, vhost: &str| format!("{what} '{name}' in vhost '{vhost}'");
    match &command.kind {
        Some(Kind::CreateVhost(one)) => format!("vhost '{}'", one.name),
        Some(Kind::UpdateVhost(one)) => format!("vhost '{}'", one.name),
        Some(Kind::DeleteVhost(one)) => format!("vhost '{}'", one.name),
        Some(Kind::PutUser(one)) => format!("user '{}'", one.name),
        Some(Kind::DeleteUser(one)) => format!("user '{}'", one.name),
        Some(Kind::SetPermissions(one)) => in_vhost("permissions of user", &one.user, &one.vhost),
        Some(Kind::ClearPermissions(one)) => in_vhost("permissions of user", &one.user, &one.vhost),
        Some(Kind::SetTopicPermissions(one)) => in_vhost("topic permissions of user", &one.user, &one.vhost),
        Some(Kind::ClearTopicPermissions(one)) => in_vhost("topic permissions of user", &one.user, &one.vhost),
        Some(Kind::DeclareExchange(one)) => in_vhost("exchange", &one.name, &one.vhost),
        Some(Kind::DeleteExchange(one)) => in_vhost("exchange", &one.name, &one.vhost),
        Some(Kind::DeclareQueue(one)) => in_vhost("queue", &one.name, &one.vhost),
        Some(Kind::DeleteQueue(one)) => in_vhost("queue", &one.name, &one.vhost),
        Some(Kind::DeleteQueues(_)) => "queues".into(),
        Some(Kind::Bind(one)) => {
            format!("binding from '{}' to '{}' in vhost '{}'", one.source, one.destination, one.vhost)
        }
        Some(Kind::Unbind(one)) => {
            format!("binding from '{}' to '{}' in vhost '{}'", one.source, one.destination, one.vhost)
        }
        Some(Kind::SetClusterName(_)) => "the cluster's name".into(),
        Some(Kind::SetPolicy(one)) => in_vhost(policy(one.operator), &one.name, &one.vhost),
        Some(Kind::ClearPolicy(one)) => in_vhost(policy(one.operator), &one.name, &one.vhost),
        Some(Kind::SetParameter(one)) => parameter(&one.component, &one.name, &one.vhost),
        Some(Kind::ClearParameter(one)) => parameter(&one.component, &one.name, &one.vhost),
        Some(Kind::SetLimits(one)) => match &one.of {
            Some(set_limits::Of::Vhost(name)) => format!("limits of vhost '{name}'"),
            Some(set_limits::Of::User(name)) => format!("limits of user '{name}'"),
            None => "limits".into(),
        },
        Some(Kind::EndTransient(_)) | None => "the catalog".into(),
        // Kinds that no definitions file and no operator's command holds.
        #[allow(unreachable_patterns)]
        Some(_) => "the catalog".into(),
    }
}

fn policy(operator: bool) -> &'static str {
    if operator { "operator policy" } else { "policy" }
}

fn parameter(component: &str, name: &str, vhost: &str) -> String {
    if component.is_empty() {
        format!("global parameter '{name}'")
    } else {
        format!("parameter '{name}' of component '{component}' in vhost '{vhost}'")
    }
}
