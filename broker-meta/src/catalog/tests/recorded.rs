//! What RabbitMQ 3.10.8 answered (`testdata/refusals.txt`, recorded by `testdata/record.py`), and what our checks and the catalog say.

use broker_core::exchange::ExchangeKind;
use broker_core::field_table::{FieldTable, TableBuilder};
use broker_core::name::{NodeId, without_line_breaks};
use broker_core::refusal::Refusal;
use broker_core::topology::{
    BindingCheck, Declare, Delete, Destination, ExchangeDeclaration, QueueDeclaration, refuse_default_exchange,
    refuse_system_exchange, reserved_queue_name,
};
use proto::meta::Command;

use super::{Catalog, catalog, field};
use crate::catalog::CatalogEvent;
use crate::command;

const RECORDED: &str = include_str!("../testdata/refusals.txt");

#[test]
fn refusals_are_rabbitmqs() {
    let mut world = World { catalog: catalog(), index: 1 };
    let mut asked = 0;
    for line in RECORDED.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (question, expected) = line.split_once(" => ").unwrap();
        assert_eq!(world.ask(question), expected, "{question}");
        asked += 1;
    }
    assert!(asked > 250, "only {asked} lines were compared");
}

#[test]
fn what_rabbitmq_cannot_say_well_is_said_clearly() {
    let mut world = World { catalog: catalog(), index: 1 };
    assert_eq!(
        world.ask("queue s durable x-queue-type:S:stream"),
        "540 connection NOT_IMPLEMENTED - queue argument 'x-queue-type=stream' is not supported"
    );
    assert_eq!(
        world.ask("queue s x-queue-master-locator:S:near"),
        "406 channel PRECONDITION_FAILED - invalid arg 'x-queue-master-locator' for queue 's' in vhost '/': \"unsupported queue master locator \
         'near'\""
    );
}

struct World {
    catalog: Catalog,
    index: u64,
}

impl World {
    /// What a client gets to hear.
    fn ask(&mut self, question: &str) -> String {
        let connection = if question.starts_with("other: ") { 2 } else { 1 };
        match self.check(question.trim_start_matches("other: "), connection) {
            Ok(commands) => commands.iter().find_map(|command| self.apply(command)).unwrap_or_else(|| "ok".into()),
            Err(refusal) => text(&refusal),
        }
    }

    fn apply(&mut self, command: &Command) -> Option<String> {
        self.index += 1;
        match self.catalog.apply(self.index, command).first() {
            Some(CatalogEvent::Refused(refusal)) => Some(text(refusal)),
            _ => None,
        }
    }

    /// The checks in the order a driver makes them, without permissions. What is left is to be proposed.
    fn check(&self, question: &str, connection: u64) -> Result<Vec<Command>, Refusal> {
        let topology = self.catalog.topology();
        let vhost = topology.vhost("/").unwrap();
        let words: Vec<String> =
            question.split(' ').map(|word| word.replace("\\r", "\r").replace("\\n", "\n").replace("''", "")).collect();
        let has = |flag: &str| words.iter().any(|word| word == flag);
        let name = without_line_breaks(&words[1]);
        let mut builder = TableBuilder::default();
        words.iter().filter(|word| word.matches(':').count() >= 2).for_each(|word| field(&mut builder, word));
        let arguments = FieldTable::parse(builder.octets()).unwrap();
        match words[0].as_str() {
            "queue" if has("passive") => vhost.check_queue_passive(&name, connection).map(|_| Vec::new()),
            "queue" => {
                let declaration = QueueDeclaration {
                    name: &name,
                    server_named: name.is_empty(),
                    durable: has("durable"),
                    exclusive: has("exclusive"),
                    auto_delete: has("auto_delete"),
                    arguments,
                    connection,
                };
                vhost.refuse_server_named(&declaration)?;
                reserved_queue_name(vhost.name(), &name)?;
                match vhost.check_queue_declare(&declaration)? {
                    Declare::Existing(_) => Ok(Vec::new()),
                    Declare::New => Ok(vec![command::declare_queue("/", &declaration, NodeId(1))]),
                }
            }
            "queue-delete" => match vhost.check_queue_delete(&name, connection)? {
                Delete::Missing => Ok(Vec::new()),
                Delete::Existing(queue) => Ok(vec![command::delete_queue("/", &name, Some(queue.id))]),
            },
            "exchange" if has("passive") => vhost.check_exchange_passive(&name).map(|_| Vec::new()),
            "exchange" => {
                let declaration = ExchangeDeclaration {
                    name: &name,
                    kind: ExchangeKind::parse(&words[2])?,
                    durable: has("durable"),
                    auto_delete: has("auto_delete"),
                    internal: has("internal"),
                    arguments,
                };
                refuse_default_exchange(&name)?;
                match vhost.check_exchange_declare(&declaration)? {
                    Declare::Existing(_) => Ok(Vec::new()),
                    Declare::New => Ok(vec![command::declare_exchange("/", &declaration)]),
                }
            }
            "exchange-delete" => {
                refuse_system_exchange(vhost.name(), &name)?;
                match vhost.check_exchange_delete(&name, has("if_unused"))? {
                    Delete::Missing => Ok(Vec::new()),
                    Delete::Existing(_) => Ok(vec![command::delete_exchange("/", &name, has("if_unused"))]),
                }
            }
            verb => {
                let destination = match words[2].as_str() {
                    "queue" => Destination::Queue(words[3].as_str().into()),
                    _ => Destination::Exchange(words[3].as_str().into()),
                };
                let key = words[4].as_bytes();
                if verb == "bind" {
                    match vhost.check_bind(&name, &destination, key, arguments, connection)? {
                        BindingCheck::Missing(binding) => Ok(vec![command::bind("/", &binding)]),
                        _ => Ok(Vec::new()),
                    }
                } else {
                    match vhost.check_unbind(&name, &destination, key, arguments, connection)? {
                        BindingCheck::Existing(binding) => Ok(vec![command::unbind("/", &binding)]),
                        _ => Ok(Vec::new()),
                    }
                }
            }
        }
    }
}

fn text(refusal: &Refusal) -> String {
    let reply = refusal.reply();
    let scope = if reply.closes_connection { "connection" } else { "channel" };
    format!("{} {scope} {}", reply.code, reply.text)
}
