//! Lists of the old tool: columns may be named, tabs stand between them.

use proto::admin::v1::{CatalogKind, catalog_item};
use proto::meta::set_limits::Of;

use super::words::Words;
use crate::client::Client;
use crate::exit::Failure;
use crate::table::Table;
use crate::{policy, rows};

type Result<T> = std::result::Result<T, Failure>;

/// A list, if the command is one.
pub async fn list(client: &mut Client, words: &Words) -> Result<Option<String>> {
    let vhost = words.vhost();
    let text = match words.command.as_str() {
        "list_queues" => {
            let table = rows::queues(&client.queues(Some(&vhost)).await?);
            let heading =
                format!("Timeout: {}.0 seconds ...\nListing queues for vhost {vhost} ...", words.timeout.unwrap_or(60));
            columns(words, table, &["name", "messages"], &heading)?
        }
        "list_exchanges" => {
            let table = catalog(client, CatalogKind::Exchanges, Some(&vhost), rows::EXCHANGES, |_| true).await?;
            columns(words, table, &["name", "type"], &format!("Listing exchanges for vhost {vhost} ..."))?
        }
        "list_bindings" => {
            let table = catalog(client, CatalogKind::Bindings, Some(&vhost), rows::BINDINGS, |_| true).await?;
            let defaults = rows::BINDINGS.get(1..).unwrap_or_default();
            columns(words, table, defaults, &format!("Listing bindings for vhost {vhost}..."))?
        }
        "list_connections" => {
            let table = rows::connections(&client.connections().await?);
            columns(words, table, &["user", "peer_host", "peer_port", "state"], "Listing connections ...")?
        }
        "list_channels" => {
            let table = rows::channels(&client.channels(words.vhost.as_deref()).await?);
            let defaults = ["pid", "user", "consumer_count", "messages_unacknowledged"];
            columns(words, table, &defaults, "Listing channels ...")?
        }
        "list_consumers" => {
            let table = rows::consumers(&client.consumers(Some(&vhost)).await?);
            let defaults = ["queue_name", "channel_pid", "consumer_tag", "ack_required"];
            columns(words, table, &defaults, &format!("Listing consumers in vhost {vhost} ..."))?
        }
        "list_vhosts" => {
            let table = catalog(client, CatalogKind::Vhosts, None, rows::VHOSTS, |_| true).await?;
            columns(words, table, &["name"], "Listing vhosts ...")?
        }
        "list_users" => {
            words.exactly::<0>("list_users")?;
            let table = catalog(client, CatalogKind::Users, None, rows::USERS, |_| true).await?;
            fixed(words, table, rows::USERS, "Listing users ...")?
        }
        "list_permissions" => {
            words.exactly::<0>("list_permissions [-p VHOST]")?;
            existing_vhost(client, &vhost).await?;
            let table = catalog(client, CatalogKind::Permissions, Some(&vhost), rows::PERMISSIONS, |_| true).await?;
            let heading = format!("Listing permissions for vhost \"{vhost}\" ...");
            fixed(words, table, &["user", "configure", "write", "read"], &heading)?
        }
        "list_user_permissions" => {
            let [user] = words.exactly("list_user_permissions USER")?;
            existing_user(client, user).await?;
            let is_of =
                |item: &catalog_item::Kind| matches!(item, catalog_item::Kind::Permissions(one) if one.user == user);
            let table = catalog(client, CatalogKind::Permissions, None, rows::PERMISSIONS, is_of).await?;
            let heading = format!("Listing permissions for user \"{user}\" ...");
            fixed(words, table, &["vhost", "configure", "write", "read"], &heading)?
        }
        "list_topic_permissions" => {
            words.exactly::<0>("list_topic_permissions [-p VHOST]")?;
            existing_vhost(client, &vhost).await?;
            let kind = CatalogKind::TopicPermissions;
            let table = catalog(client, kind, Some(&vhost), rows::TOPIC_PERMISSIONS, |_| true).await?;
            let heading = format!("Listing topic permissions for vhost \"{vhost}\" ...");
            fixed(words, table, &["user", "exchange", "write", "read"], &heading)?
        }
        "list_policies" | "list_operator_policies" => {
            words.exactly::<0>("list_policies [-p VHOST]")?;
            let operator = words.command == "list_operator_policies";
            let what = if operator { "operator policy overrides" } else { "policies" };
            let is_of =
                |item: &catalog_item::Kind| matches!(item, catalog_item::Kind::Policy(one) if one.operator == operator);
            let table = catalog(client, CatalogKind::Policies, Some(&vhost), rows::POLICIES, is_of).await?;
            let defaults = rows::POLICIES.get(..6).unwrap_or_default();
            fixed(words, table, defaults, &format!("Listing {what} for vhost \"{vhost}\" ..."))?
        }
        "list_parameters" | "list_global_parameters" => {
            let global = words.command == "list_global_parameters";
            let is_of = |item: &catalog_item::Kind| matches!(item, catalog_item::Kind::Parameter(one) if one.component.is_empty() == global);
            let table = catalog(client, CatalogKind::Parameters, Some(&vhost), rows::PARAMETERS, is_of).await?;
            match global {
                true => fixed(words, table, &["name", "value"], "Listing global runtime parameters ...")?,
                false => {
                    let heading = format!("Listing runtime parameters for vhost \"{vhost}\" ...");
                    fixed(words, table, &["component", "name", "value"], &heading)?
                }
            }
        }
        "list_vhost_limits" => limits(client, words, &Of::Vhost(vhost.clone()), &format!("vhost \"{vhost}\"")).await?,
        "list_user_limits" => {
            let user = words
                .user
                .clone()
                .ok_or_else(|| Failure::usage("--user is needed. Usage: rabbitmqctl list_user_limits --user USER"))?;
            limits(client, words, &Of::User(user.clone()), &format!("user \"{user}\"")).await?
        }
        _ => return Ok(None),
    };
    Ok(Some(text))
}

async fn catalog(
    client: &mut Client,
    kind: CatalogKind,
    vhost: Option<&str>,
    columns: &[&'static str],
    is_wanted: impl Fn(&catalog_item::Kind) -> bool,
) -> Result<Table> {
    let mut items = client.catalog(kind, vhost).await?;
    items.retain(is_wanted);
    Ok(rows::catalog(columns, items))
}

/// A list whose columns can be named, in words of their own or with commas between them.
fn columns(words: &Words, table: Table, defaults: &[&str], heading: &str) -> Result<String> {
    let asked: Vec<&str> =
        words.arguments.iter().flat_map(|word| word.split(',')).filter(|word| !word.is_empty()).collect();
    fixed(words, table, if asked.is_empty() { defaults } else { &asked }, heading)
}

fn fixed(words: &Words, table: Table, columns: &[&str], heading: &str) -> Result<String> {
    let table = table.select(columns)?;
    Ok(match (words.json, words.quiet) {
        (true, _) => table.json(),
        (false, true) => table.tabbed(words.headers),
        (false, false) => format!("{heading}\n{}", table.tabbed(words.headers)),
    })
}

async fn limits(client: &mut Client, words: &Words, of: &Of, what: &str) -> Result<String> {
    let items = client.catalog(CatalogKind::Limits, None).await?;
    let found = items.into_iter().find_map(|item| match item {
        catalog_item::Kind::Limits(limits) if limits.of.as_ref() == Some(of) => Some(limits),
        _ => None,
    });
    let json = policy::limits_json(&found.unwrap_or_default());
    Ok(if words.quiet || words.json { format!("{json}\n") } else { format!("Listing limits for {what} ...\n{json}\n") })
}

async fn existing_vhost(client: &mut Client, name: &str) -> Result<()> {
    let vhosts = client.catalog(CatalogKind::Vhosts, None).await?;
    let is_it = |item: &catalog_item::Kind| matches!(item, catalog_item::Kind::Vhost(one) if one.vhost.as_ref().is_some_and(|vhost| vhost.name == name));
    if vhosts.iter().any(is_it) {
        return Ok(());
    }
    Err(super::commands::no_vhost(name))
}

async fn existing_user(client: &mut Client, name: &str) -> Result<()> {
    let users = client.catalog(CatalogKind::Users, None).await?;
    if users.iter().any(|item| matches!(item, catalog_item::Kind::User(user) if user.name == name)) {
        return Ok(());
    }
    Err(Failure::new(crate::exit::Exit::Unavailable, format!("{{:no_such_user, \"{name}\"}}")))
}
