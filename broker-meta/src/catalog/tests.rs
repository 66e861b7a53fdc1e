//! The catalog and the checks before it: against RabbitMQ's recorded answers, and against a naive model.

mod access;
mod difference;
mod members;
mod model;
mod recorded;
mod settings;
mod view;

use broker_core::field_table::{FieldTable, TableBuilder, Value};
use broker_core::topology::QueueDeclaration;

use super::Catalog;
use crate::command;

/// A catalog with the vhost "/".
fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    catalog.apply(1, &command::create_vhost("/", "", &[]));
    catalog
}

/// A queue without arguments.
fn plain_queue(name: &str, durable: bool) -> QueueDeclaration<'_> {
    QueueDeclaration {
        name,
        server_named: false,
        durable,
        exclusive: false,
        auto_delete: false,
        arguments: FieldTable::default(),
        connection: 0,
    }
}

/// Adds a field written as `name:type:value`, with AMQP's letters for types.
fn field(builder: &mut TableBuilder, text: &str) {
    let mut parts = text.splitn(3, ':');
    let (name, kind, value) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let mut inner = TableBuilder::default();
    inner.push(b"k", Value::LongString(value.as_bytes()));
    let mut array = Vec::new();
    array.extend_from_slice(b"\x01kA");
    array.extend_from_slice(&(inner.octets().len() as u32 - 2).to_be_bytes());
    array.extend_from_slice(&inner.octets()[2..]);
    let array = broker_core::field_table::FieldTable::parse(&array).unwrap();
    let value = match kind {
        "t" => Value::Bool(value == "true"),
        "b" => Value::Int8(value.parse().unwrap()),
        "B" => Value::UInt8(value.parse().unwrap()),
        "s" => Value::Int16(value.parse().unwrap()),
        "u" => Value::UInt16(value.parse().unwrap()),
        "I" => Value::Int32(value.parse().unwrap()),
        "i" => Value::UInt32(value.parse().unwrap()),
        "l" => Value::Int64(value.parse().unwrap()),
        "f" => Value::Float(value.parse().unwrap()),
        "d" => Value::Double(value.parse().unwrap()),
        "T" => Value::Timestamp(value.parse().unwrap()),
        "D" => {
            let (scale, number) = value.split_once('/').unwrap();
            Value::Decimal(scale.parse().unwrap(), number.parse().unwrap())
        }
        "S" => Value::LongString(value.as_bytes()),
        "x" => Value::Bytes(value.as_bytes()),
        "V" => Value::Void,
        "A" => array.lookup(b"k").unwrap(),
        "F" => Value::Table(broker_core::field_table::FieldTable::parse(inner.octets()).unwrap()),
        other => panic!("no field type {other}"),
    };
    builder.push(name.as_bytes(), value);
}
