//! Declarations, bindings, deletions: what a channel asks of the catalog.

use amq_protocol::protocol::{exchange, queue};

use crate::channel::{Channel, Then};
use crate::exception::Exception;
use crate::names::Names;
use crate::output::{Binding, Request};

/// A request, whether the client wants an answer, and what becomes of the answer.
pub(crate) type Asked = (Request, bool, Then);

impl Channel {
    /// Class exchange. Names are taken as they are, without line ends.
    pub(crate) fn exchange_method(&self, method: exchange::AMQPMethod, table: &[u8]) -> Result<Asked, Exception> {
        use exchange::AMQPMethod;
        Ok(match method {
            AMQPMethod::Declare(declare) => {
                let request = Request::ExchangeDeclare {
                    name: without_line_ends(declare.exchange.as_str()),
                    kind: declare.kind.as_str().into(),
                    passive: declare.passive,
                    durable: declare.durable,
                    auto_delete: declare.auto_delete,
                    internal: declare.internal,
                    arguments: table.into(),
                };
                (request, declare.nowait, Then::Ok(11))
            }
            AMQPMethod::Delete(delete) => {
                let name = without_line_ends(delete.exchange.as_str());
                (Request::ExchangeDelete { name, if_unused: delete.if_unused }, delete.nowait, Then::Ok(21))
            }
            AMQPMethod::Bind(bind) => {
                let key = bind.routing_key.as_str().as_bytes();
                let binding = binding(bind.source.as_str(), bind.destination.as_str(), key, table);
                (Request::ExchangeBind(binding), bind.nowait, Then::Ok(31))
            }
            AMQPMethod::Unbind(unbind) => {
                let key = unbind.routing_key.as_str().as_bytes();
                let binding = binding(unbind.source.as_str(), unbind.destination.as_str(), key, table);
                (Request::ExchangeUnbind(binding), unbind.nowait, Then::Ok(51))
            }
            _ => return Err(Exception::unimplemented_method()),
        })
    }

    /// Class queue. An empty name stands for the queue declared last.
    pub(crate) fn queue_method(
        &self,
        method: queue::AMQPMethod,
        table: &[u8],
        names: &mut Names,
    ) -> Result<Asked, Exception> {
        use queue::AMQPMethod;
        Ok(match method {
            AMQPMethod::Declare(declare) => return queue_declare(declare, table, names),
            AMQPMethod::Bind(bind) => {
                let key = self.binding_key(bind.queue.as_str(), bind.routing_key.as_str())?;
                let queue = self.queue_named(bind.queue.as_str())?;
                let binding = binding(bind.exchange.as_str(), queue, key, table);
                (Request::QueueBind(binding), bind.nowait, Then::Ok(21))
            }
            AMQPMethod::Unbind(unbind) => {
                let key = self.binding_key(unbind.queue.as_str(), unbind.routing_key.as_str())?;
                let queue = self.queue_named(unbind.queue.as_str())?;
                (Request::QueueUnbind(binding(unbind.exchange.as_str(), queue, key, table)), false, Then::Ok(51))
            }
            AMQPMethod::Purge(purge) => {
                let name = without_line_ends(self.queue_named(purge.queue.as_str())?);
                (Request::QueuePurge { name }, purge.nowait, Then::Purge)
            }
            AMQPMethod::Delete(delete) => {
                let name = without_line_ends(self.queue_named(delete.queue.as_str())?);
                let request = Request::QueueDelete { name, if_unused: delete.if_unused, if_empty: delete.if_empty };
                (request, delete.nowait, Then::Delete)
            }
            _ => return Err(Exception::unimplemented_method()),
        })
    }

    /// The queue a name stands for: itself, or the one declared last on this channel.
    pub(crate) fn queue_named<'a>(&'a self, name: &'a str) -> Result<&'a str, Exception> {
        match name {
            "" => self.last_queue.as_deref().ok_or_else(Exception::no_previously_declared_queue),
            name => Ok(name),
        }
    }

    /// With neither queue nor key, the key is the name of the queue declared last.
    fn binding_key<'a>(&'a self, queue: &str, key: &'a str) -> Result<&'a [u8], Exception> {
        let key = if queue.is_empty() && key.is_empty() { self.queue_named("")? } else { key };
        Ok(key.as_bytes())
    }
}

fn queue_declare(declare: queue::Declare, table: &[u8], names: &mut Names) -> Result<Asked, Exception> {
    let wanted = without_line_ends(declare.queue.as_str());
    let server_named = wanted.is_empty() && !declare.passive;
    // RabbitMQ looks at the prefix before anything else, also when the queue exists. The reply-to pseudo queues are the exception.
    if wanted.starts_with("amq.") && !declare.passive && !declare.queue.as_str().starts_with("amq.rabbitmq.reply-to") {
        return Err(Exception::reserved_name("queue", &wanted));
    }
    let name = if server_named { names.queue() } else { wanted };
    let request = Request::QueueDeclare {
        name: name.clone(),
        server_named,
        passive: declare.passive,
        durable: declare.durable,
        exclusive: declare.exclusive,
        auto_delete: declare.auto_delete,
        arguments: table.into(),
    };
    Ok((request, declare.nowait, Then::Declare { name }))
}

fn binding(source: &str, destination: &str, routing_key: &[u8], table: &[u8]) -> Binding {
    Binding {
        source: without_line_ends(source),
        destination: without_line_ends(destination),
        routing_key: routing_key.into(),
        arguments: table.into(),
    }
}

/// RabbitMQ takes carriage returns and line feeds out of names.
fn without_line_ends(name: &str) -> Box<str> {
    if name.contains(['\r', '\n']) { name.replace(['\r', '\n'], "").into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declare(name: &str, passive: bool) -> Result<Asked, Exception> {
        let declare = queue::Declare { queue: name.into(), passive, ..Default::default() };
        Channel::new(1).queue_method(queue::AMQPMethod::Declare(declare), b"", &mut Names::new(1))
    }

    fn declared_name(asked: Result<Asked, Exception>) -> Box<str> {
        match asked {
            Ok((Request::QueueDeclare { name, .. }, ..)) => name,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_are_made_cleaned_and_guarded() {
        assert!(declared_name(declare("", false)).starts_with("amq.gen-"));
        assert_eq!(&*declared_name(declare("", true)), "");
        assert_eq!(&*declared_name(declare("a\r\nb", false)), "ab");
        assert_eq!(&*declared_name(declare("amq.x", true)), "amq.x");
        assert_eq!(declare("amq.x", false).unwrap_err().text, "queue name 'amq.x' contains reserved prefix 'amq.*'");
    }

    #[test]
    fn an_empty_name_is_the_queue_declared_last() {
        let bind = || queue::AMQPMethod::Bind(queue::Bind { exchange: "x".into(), ..Default::default() });
        let mut channel = Channel::new(1);
        let mut names = Names::new(1);
        assert_eq!(channel.queue_method(bind(), b"", &mut names).unwrap_err().text, "no previously declared queue");
        channel.last_queue = Some("mine".into());
        let Ok((Request::QueueBind(binding), ..)) = channel.queue_method(bind(), b"", &mut names) else { panic!() };
        assert_eq!((&*binding.destination, &*binding.routing_key), ("mine", &b"mine"[..]));
    }
}
