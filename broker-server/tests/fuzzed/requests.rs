//! Requests of operators as the octets of their messages: what passes the first look is applied to a catalog, and every list of it can be made.

use broker_meta::{Catalog, CatalogEvent, Command};
use broker_server::admin::lists::{catalog_items, parts, queues};
use broker_server::admin::precheck::precheck;
use prost::Message;
use proto::admin::v1::{ChangeRequest, ListCatalogRequest};

/// The octets are a request to change things; what follows the first octet that is 255 is a request for lists.
pub fn live(octets: &[u8]) {
    let end = octets.iter().position(|octet| *octet == 255).unwrap_or(octets.len());
    let (change, list) = octets.split_at(end);
    let mut catalog = furnished();
    if let Ok(request) = ChangeRequest::decode(change) {
        for command in request.commands {
            apply(&mut catalog, &command, request.must_be_new);
        }
    }
    let all = ListCatalogRequest { kinds: (0..12).collect(), vhost: None };
    let asked = ListCatalogRequest::decode(list.get(1..).unwrap_or_default());
    for request in [Some(all), asked.ok()].into_iter().flatten() {
        let items = catalog_items(&catalog, &request);
        let count = items.len();
        assert_eq!(parts(items, Message::encoded_len).concat().len(), count);
        assert!(queues(&catalog.topology(), request.vhost.as_deref()).len() <= catalog.topology().queue_count());
    }
    let again = Catalog::from_snapshot(&catalog.to_snapshot()).unwrap();
    assert_eq!(again.to_snapshot(), catalog.to_snapshot());
}

fn apply(catalog: &mut Catalog, command: &Command, must_be_new: bool) {
    if let Err(refused) = precheck(catalog, command, must_be_new) {
        assert!(!refused.text.is_empty());
        return;
    }
    let events = catalog.apply(catalog.index() + 1, command);
    assert!(!events.is_empty());
    if let CatalogEvent::Refused(refusal) = &events[0] {
        assert!(!refusal.to_string().is_empty());
    }
}

/// A catalog with a vhost, a user and a queue, so that commands find something.
fn furnished() -> Catalog {
    use proto::meta::command::Kind;
    use proto::meta::{CreateVhost, DeclareQueue, PutUser};
    let mut catalog = Catalog::default();
    let vhost = CreateVhost { name: "v".into(), ..CreateVhost::default() };
    let user = PutUser { name: "u".into(), ..PutUser::default() };
    let queue = DeclareQueue { vhost: "v".into(), name: "q".into(), durable: true, node: 1, ..DeclareQueue::default() };
    for kind in [Kind::CreateVhost(vhost), Kind::PutUser(user), Kind::DeclareQueue(queue)] {
        catalog.apply(catalog.index() + 1, &Command { kind: Some(kind) });
    }
    catalog
}
