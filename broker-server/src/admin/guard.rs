//! The admin service for users who come from elsewhere: the same one, and before it the question whether this user may.
//!
//! What a tag allows in part, the user's own vhosts and clients, is cut out of the answers here. The rule itself is in [`super::rights`].

#![allow(clippy::result_large_err, reason = "tonic's own error")]

use std::sync::Arc;

use broker_core::access::Operation;
use proto::admin::v1::admin_server::Admin;
use proto::admin::v1::catalog_item::Kind as Item;
use proto::admin::v1::{
    AlarmLimits, AlarmLimitsInEffect, CatalogKind, CatalogPart, ChangeRequest, ChangeResponse, ChannelPart,
    CloseConnectionsRequest, CloseConnectionsResponse, Cluster, ConnectionPart, ConsumerPart, DeleteQueueRequest,
    DocumentPart, ExportDefinitionsRequest, ForceBootRequest, ForceBootResponse, ForgetNodeRequest, ForgetNodeResponse,
    GetClusterRequest, GetStatusRequest, ImportDefinitionsResponse, JoinClusterRequest, JoinClusterResponse,
    LeaveClusterRequest, LeaveClusterResponse, ListCatalogRequest, ListConnectionsRequest, ListQueuesRequest,
    PurgeQueueRequest, PutUserRequest, QueueAnswer, QueuePart, SetDrainedRequest, SetDrainedResponse,
    Status as NodeStatus,
};
use proto::meta::command::Kind;
use proto::meta::{Command, set_limits};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status, Streaming};

use super::caller::Caller;
use super::rights::{Deed, Extent};
use super::service::{COMMANDS_MAX, Parts, Reply, Service};

/// See the module's page.
pub struct Guard(Arc<Service>);

impl Guard {
    /// Stands before that service.
    pub fn new(service: Arc<Service>) -> Self {
        Self(service)
    }

    /// The service, for who may do everything there is; the log hears of it.
    fn administered<T>(&self, request: &Request<T>, what: &str) -> Result<&Service, Status> {
        let caller = Caller::of(request)?;
        caller.may(Deed::Administer)?;
        caller.does(what);
        Ok(&self.0)
    }
}

#[tonic::async_trait]
impl Admin for Guard {
    type ListCatalogStream = Parts<CatalogPart>;
    type ListQueuesStream = Parts<QueuePart>;
    type ListConnectionsStream = Parts<ConnectionPart>;
    type ListChannelsStream = Parts<ChannelPart>;
    type ListConsumersStream = Parts<ConsumerPart>;
    type ExportDefinitionsStream = Parts<DocumentPart>;

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Reply<NodeStatus> {
        Caller::of(&request)?.may(Deed::SeeNodes)?;
        self.0.get_status(request).await
    }

    async fn change(&self, request: Request<ChangeRequest>) -> Reply<ChangeResponse> {
        let caller = Caller::of(&request)?;
        for command in &request.get_ref().commands {
            let (deed, vhost) = deed_of(command);
            caller.may_in_any(deed, vhost)?;
        }
        // With more it is refused, and nothing of it needs a line in the log.
        if request.get_ref().commands.len() <= COMMANDS_MAX {
            request.get_ref().commands.iter().for_each(|command| caller.does(&described(command)));
        }
        self.0.change(request).await
    }

    async fn put_user(&self, request: Request<PutUserRequest>) -> Reply<ChangeResponse> {
        let what = format!("create or change the user '{}'", request.get_ref().name);
        self.administered(&request, &what)?.put_user(request).await
    }

    async fn list_catalog(&self, request: Request<ListCatalogRequest>) -> Reply<Self::ListCatalogStream> {
        let caller = Caller::of(&request)?;
        let asked = request.get_ref();
        for kind in asked.kinds() {
            let deed = deed_of_kind(kind);
            // Users have no vhost, and what is said of all vhosts can be asked for with any.
            caller.may_in_any(deed, asked.vhost.as_deref())?;
        }
        let sees = move |part: &mut CatalogPart| {
            part.items.retain(|item| item.kind.as_ref().is_some_and(|item| sees(&caller, item)));
        };
        Ok(narrowed(self.0.list_catalog(request).await?, sees))
    }

    async fn list_queues(&self, request: Request<ListQueuesRequest>) -> Reply<Self::ListQueuesStream> {
        let caller = Caller::of(&request)?;
        caller.may_in_any(Deed::SeeObjects, request.get_ref().vhost.as_deref())?;
        let sees = move |part: &mut QueuePart| {
            part.queues.retain(|queue| {
                queue.declared.as_ref().is_some_and(|queue| caller.covers(Deed::SeeObjects, &queue.vhost))
            });
        };
        Ok(narrowed(self.0.list_queues(request).await?, sees))
    }

    async fn list_connections(&self, request: Request<ListConnectionsRequest>) -> Reply<Self::ListConnectionsStream> {
        let whose = Caller::of(&request)?.whose(Deed::SeeClients)?;
        let sees = move |part: &mut ConnectionPart| part.connections.retain(|one| is_of(&whose, &one.user));
        Ok(narrowed(self.0.list_connections(request).await?, sees))
    }

    async fn list_channels(&self, request: Request<ListConnectionsRequest>) -> Reply<Self::ListChannelsStream> {
        let whose = Caller::of(&request)?.whose(Deed::SeeClients)?;
        let sees = move |part: &mut ChannelPart| {
            part.channels.retain(|one| one.connection.as_ref().is_some_and(|of| is_of(&whose, &of.user)));
        };
        Ok(narrowed(self.0.list_channels(request).await?, sees))
    }

    async fn list_consumers(&self, request: Request<ListConnectionsRequest>) -> Reply<Self::ListConsumersStream> {
        let whose = Caller::of(&request)?.whose(Deed::SeeClients)?;
        let sees = move |part: &mut ConsumerPart| part.consumers.retain(|one| is_of(&whose, &one.user));
        Ok(narrowed(self.0.list_consumers(request).await?, sees))
    }

    async fn purge_queue(&self, request: Request<PurgeQueueRequest>) -> Reply<QueueAnswer> {
        let caller = Caller::of(&request)?;
        let PurgeQueueRequest { vhost, name } = request.get_ref();
        caller.may_with_queue(vhost, &Operation::Purge { queue: name })?;
        caller.does(&format!("purge the queue '{name}' of the vhost '{vhost}'"));
        self.0.purge_queue(request).await
    }

    async fn delete_queue(&self, request: Request<DeleteQueueRequest>) -> Reply<QueueAnswer> {
        let caller = Caller::of(&request)?;
        let DeleteQueueRequest { vhost, name, .. } = request.get_ref();
        caller.may_with_queue(vhost, &Operation::DeleteQueue { queue: name })?;
        caller.does(&format!("delete the queue '{name}' of the vhost '{vhost}'"));
        self.0.delete_queue(request).await
    }

    async fn close_connections(
        &self,
        mut request: Request<CloseConnectionsRequest>,
    ) -> Reply<CloseConnectionsResponse> {
        let caller = Caller::of(&request)?;
        if let Some(own) = caller.whose(Deed::CloseConnections)? {
            let selected = &mut request.get_mut().user;
            if selected.as_ref().is_some_and(|user| *user != own) {
                return Err(caller.refused("it takes the tag administrator to close connections of other users"));
            }
            *selected = Some(own);
        }
        caller.does(&closing(request.get_ref()));
        self.0.close_connections(request).await
    }

    async fn set_alarm_limits(&self, request: Request<AlarmLimits>) -> Reply<AlarmLimitsInEffect> {
        self.administered(&request, "change the limits of the alarms")?.set_alarm_limits(request).await
    }

    async fn get_cluster(&self, request: Request<GetClusterRequest>) -> Reply<Cluster> {
        Caller::of(&request)?.may(Deed::SeeNodes)?;
        self.0.get_cluster(request).await
    }

    async fn join_cluster(&self, request: Request<JoinClusterRequest>) -> Reply<JoinClusterResponse> {
        let what = format!("have this node join the cluster of '{}'", request.get_ref().address);
        self.administered(&request, &what)?.join_cluster(request).await
    }

    async fn leave_cluster(&self, request: Request<LeaveClusterRequest>) -> Reply<LeaveClusterResponse> {
        self.administered(&request, "have this node leave its cluster")?.leave_cluster(request).await
    }

    async fn forget_node(&self, request: Request<ForgetNodeRequest>) -> Reply<ForgetNodeResponse> {
        let what = format!("take the node '{}' out of the cluster", request.get_ref().name);
        self.administered(&request, &what)?.forget_node(request).await
    }

    async fn set_drained(&self, request: Request<SetDrainedRequest>) -> Reply<SetDrainedResponse> {
        let what = if request.get_ref().drained { "drain this node" } else { "revive this node" };
        self.administered(&request, what)?.set_drained(request).await
    }

    async fn force_boot(&self, request: Request<ForceBootRequest>) -> Reply<ForceBootResponse> {
        self.administered(&request, "have this node form a cluster of itself")?.force_boot(request).await
    }

    async fn export_definitions(
        &self,
        request: Request<ExportDefinitionsRequest>,
    ) -> Reply<Self::ExportDefinitionsStream> {
        self.administered(&request, "export all definitions")?.export_definitions(request).await
    }

    async fn import_definitions(&self, request: Request<Streaming<DocumentPart>>) -> Reply<ImportDefinitionsResponse> {
        self.administered(&request, "import definitions")?.import_definitions(request).await
    }
}

/// A list without what its reader is not to see.
fn narrowed<T: Send + 'static>(
    reply: Response<Parts<T>>,
    mut keep: impl FnMut(&mut T) + Send + 'static,
) -> Response<Parts<T>> {
    let narrow = move |part: Result<T, Status>| {
        part.map(|mut part| {
            keep(&mut part);
            part
        })
    };
    reply.map(|parts| Box::pin(parts.map(narrow)) as Parts<T>)
}

fn is_of(whose: &Option<String>, user: &str) -> bool {
    whose.as_deref().is_none_or(|own| own == user)
}

/// What a change takes, and where.
fn deed_of(command: &Command) -> (Deed, Option<&str>) {
    match &command.kind {
        Some(Kind::SetPolicy(one)) if !one.operator => (Deed::ChangePolicies, Some(&one.vhost)),
        Some(Kind::ClearPolicy(one)) if !one.operator => (Deed::ChangePolicies, Some(&one.vhost)),
        Some(Kind::SetParameter(one)) if one.component.is_empty() => (Deed::GlobalParameters, None),
        Some(Kind::ClearParameter(one)) if one.component.is_empty() => (Deed::GlobalParameters, None),
        Some(Kind::SetParameter(one)) => (Deed::ChangePolicies, Some(&one.vhost)),
        Some(Kind::ClearParameter(one)) => (Deed::ChangePolicies, Some(&one.vhost)),
        _ => (Deed::Administer, None),
    }
}

fn deed_of_kind(kind: CatalogKind) -> Deed {
    match kind {
        CatalogKind::Vhosts | CatalogKind::Exchanges | CatalogKind::Bindings | CatalogKind::Limits => Deed::SeeObjects,
        CatalogKind::Parameters | CatalogKind::Policies => Deed::SeePolicies,
        CatalogKind::Users | CatalogKind::Permissions | CatalogKind::TopicPermissions => Deed::SeeUsers,
    }
}

/// Whether a user sees an item of a list it may ask for.
fn sees(caller: &Caller, item: &Item) -> bool {
    let covers = |deed, vhost: &str| caller.covers(deed, vhost);
    match item {
        Item::Vhost(one) => one.vhost.as_ref().is_some_and(|vhost| covers(Deed::SeeObjects, &vhost.name)),
        Item::Exchange(one) => covers(Deed::SeeObjects, &one.vhost),
        Item::Binding(one) => covers(Deed::SeeObjects, &one.vhost),
        Item::Policy(one) => covers(Deed::SeePolicies, &one.vhost),
        Item::Parameter(one) if one.component.is_empty() => {
            super::rights::extent(&caller.user, Deed::GlobalParameters) == Extent::Everything
        }
        Item::Parameter(one) => covers(Deed::SeePolicies, &one.vhost),
        Item::Limits(one) => match &one.of {
            Some(set_limits::Of::Vhost(vhost)) => covers(Deed::SeeObjects, vhost),
            Some(set_limits::Of::User(user)) => *user == *caller.user.name || covers(Deed::SeeUsers, ""),
            None => false,
        },
        Item::User(_) | Item::Permissions(_) | Item::TopicPermissions(_) => covers(Deed::SeeUsers, ""),
    }
}

/// A change in the words of a log: names, never values, some of which are secrets.
fn described(command: &Command) -> String {
    let in_vhost = |what: &str, name: &str, vhost: &str| format!("{what} '{name}' in the vhost '{vhost}'");
    match &command.kind {
        None => "change nothing".into(),
        Some(Kind::CreateVhost(one)) => format!("create the vhost '{}'", one.name),
        Some(Kind::DeleteVhost(one)) => format!("delete the vhost '{}'", one.name),
        Some(Kind::UpdateVhost(one)) => format!("change the vhost '{}'", one.name),
        Some(Kind::PutUser(one)) => format!("create or change the user '{}'", one.name),
        Some(Kind::DeleteUser(one)) => format!("delete the user '{}'", one.name),
        Some(Kind::SetPermissions(one)) => in_vhost("set permissions of the user", &one.user, &one.vhost),
        Some(Kind::ClearPermissions(one)) => in_vhost("clear permissions of the user", &one.user, &one.vhost),
        Some(Kind::SetTopicPermissions(one)) => in_vhost("set topic permissions of the user", &one.user, &one.vhost),
        Some(Kind::ClearTopicPermissions(one)) => {
            in_vhost("clear topic permissions of the user", &one.user, &one.vhost)
        }
        Some(Kind::SetPolicy(one)) => in_vhost("set the policy", &one.name, &one.vhost),
        Some(Kind::ClearPolicy(one)) => in_vhost("delete the policy", &one.name, &one.vhost),
        Some(Kind::SetParameter(one)) => in_vhost("set the parameter", &one.name, &one.vhost),
        Some(Kind::ClearParameter(one)) => in_vhost("delete the parameter", &one.name, &one.vhost),
        Some(Kind::SetClusterName(one)) => format!("name the cluster '{}'", one.name),
        Some(Kind::SetLimits(one)) => match &one.of {
            Some(set_limits::Of::Vhost(name)) => format!("set limits of the vhost '{name}'"),
            Some(set_limits::Of::User(name)) => format!("set limits of the user '{name}'"),
            None => "set limits".into(),
        },
        Some(Kind::DeclareExchange(one)) => in_vhost("declare the exchange", &one.name, &one.vhost),
        Some(Kind::DeleteExchange(one)) => in_vhost("delete the exchange", &one.name, &one.vhost),
        Some(Kind::DeclareQueue(one)) => in_vhost("declare the queue", &one.name, &one.vhost),
        Some(Kind::DeleteQueue(one)) => in_vhost("delete the queue", &one.name, &one.vhost),
        Some(Kind::Bind(one)) => in_vhost("bind to the exchange", &one.source, &one.vhost),
        Some(Kind::Unbind(one)) => in_vhost("unbind from the exchange", &one.source, &one.vhost),
        Some(
            Kind::DeleteQueues(_)
            | Kind::EndTransient(_)
            | Kind::AddMember(_)
            | Kind::RemoveMember(_)
            | Kind::Import(_),
        ) => "do what is a node's to do".into(),
    }
}

fn closing(request: &CloseConnectionsRequest) -> String {
    let mut text = match request.number {
        Some(number) => format!("close the connection {number}"),
        None => "close connections".into(),
    };
    if let Some(user) = &request.user {
        text.push_str(&format!(" of the user '{user}'"));
    }
    if let Some(vhost) = &request.vhost {
        text.push_str(&format!(" in the vhost '{vhost}'"));
    }
    text
}

#[cfg(test)]
mod tests {
    use proto::meta::{ClearPolicy, DeleteUser, SetParameter, SetPolicy};

    use super::*;

    #[test]
    fn changes_take_what_they_take_in_rabbitmq() {
        let deed = |kind: Kind| {
            let command = Command { kind: Some(kind) };
            let (deed, vhost) = deed_of(&command);
            (deed, vhost.map(str::to_owned))
        };
        let policy = |operator| SetPolicy { vhost: "v".into(), operator, ..SetPolicy::default() };
        assert_eq!(deed(Kind::SetPolicy(policy(false))), (Deed::ChangePolicies, Some("v".into())));
        assert_eq!(deed(Kind::SetPolicy(policy(true))), (Deed::Administer, None));
        let clear = ClearPolicy { vhost: "v".into(), operator: true, ..ClearPolicy::default() };
        assert_eq!(deed(Kind::ClearPolicy(clear)), (Deed::Administer, None));
        let parameter = |component: &str| SetParameter {
            vhost: "v".into(),
            component: component.into(),
            ..SetParameter::default()
        };
        assert_eq!(deed(Kind::SetParameter(parameter(""))), (Deed::GlobalParameters, None));
        assert_eq!(deed(Kind::SetParameter(parameter("shovel"))), (Deed::ChangePolicies, Some("v".into())));
        assert_eq!(deed(Kind::DeleteUser(DeleteUser { name: "u".into() })), (Deed::Administer, None));
        assert_eq!(deed_of(&Command { kind: None }), (Deed::Administer, None));
    }

    #[test]
    fn the_log_hears_names_and_no_values() {
        let set = SetParameter {
            vhost: "v".into(),
            component: "shovel".into(),
            name: "s".into(),
            value: "\"amqp://u:secret@h\"".into(),
        };
        let text = described(&Command { kind: Some(Kind::SetParameter(set)) });
        assert_eq!(text, "set the parameter 's' in the vhost 'v'");
        let close = CloseConnectionsRequest { user: Some("ann".into()), ..CloseConnectionsRequest::default() };
        assert_eq!(closing(&close), "close connections of the user 'ann'");
    }
}
