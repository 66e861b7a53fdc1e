//! Queues that hold nothing: a name and who consumes.

use std::collections::HashMap;

use crate::wire::{self, BASIC_DELIVER};

/// All queues and bindings.
#[derive(Debug, Default)]
pub struct Queues {
    by_name: HashMap<Vec<u8>, usize>,
    queues: Vec<Queue>,
    /// Exchange to queues; the routing key counts for nothing.
    bindings: HashMap<Vec<u8>, Vec<usize>>,
    /// Changes whenever a cached route may be wrong.
    pub generation: u64,
}

/// A queue.
#[derive(Debug, Default)]
pub struct Queue {
    consumers: Vec<Consumer>,
    turn: usize,
}

/// Someone who consumes.
#[derive(Debug)]
pub struct Consumer {
    /// The slot of the connection.
    pub slot: usize,
    /// The channel.
    pub channel: u16,
    tag: Vec<u8>,
    next_delivery: u64,
    /// The deliver frame of the last message, good for the next one with the same exchange and routing key.
    template: Vec<u8>,
    template_route: Vec<u8>,
    number_at: usize,
}

impl Queues {
    /// Makes a queue, if there is none.
    pub fn declare(&mut self, name: &[u8]) {
        if !self.by_name.contains_key(name) {
            self.by_name.insert(name.to_vec(), self.queues.len());
            self.queues.push(Queue::default());
            self.generation += 1;
        }
    }

    /// Forgets the name of a queue.
    pub fn delete(&mut self, name: &[u8]) {
        if let Some(index) = self.by_name.remove(name) {
            self.bindings.values_mut().for_each(|queues| queues.retain(|&queue| queue != index));
            if let Some(queue) = self.queues.get_mut(index) {
                *queue = Queue::default();
            }
            self.generation += 1;
        }
    }

    /// Binds a queue to an exchange.
    pub fn bind(&mut self, name: &[u8], exchange: &[u8]) {
        if let Some(&index) = self.by_name.get(name) {
            self.bindings.entry(exchange.to_vec()).or_default().push(index);
            self.generation += 1;
        }
    }

    /// Forgets the bindings of an exchange.
    pub fn delete_exchange(&mut self, exchange: &[u8]) {
        self.bindings.remove(exchange);
        self.generation += 1;
    }

    /// Adds a consumer.
    pub fn consume(&mut self, name: &[u8], slot: usize, channel: u16, tag: &[u8]) {
        if let Some(queue) = self.by_name.get(name).and_then(|&index| self.queues.get_mut(index)) {
            queue.consumers.push(Consumer {
                slot,
                channel,
                tag: tag.to_vec(),
                next_delivery: 1,
                template: Vec::new(),
                template_route: Vec::new(),
                number_at: 0,
            });
        }
    }

    /// Removes all consumers of a connection.
    pub fn forget_connection(&mut self, slot: usize) {
        for queue in &mut self.queues {
            queue.consumers.retain(|consumer| consumer.slot != slot);
        }
    }

    /// The queues that a message to `exchange` with `routing_key` comes to.
    #[must_use]
    pub fn route(&self, exchange: &[u8], routing_key: &[u8]) -> Vec<usize> {
        if exchange.is_empty() {
            return self.by_name.get(routing_key).copied().into_iter().collect();
        }
        self.bindings.get(exchange).cloned().unwrap_or_default()
    }

    /// The consumer whose turn it is.
    #[inline]
    pub fn next_consumer(&mut self, index: usize) -> Option<&mut Consumer> {
        let queue = self.queues.get_mut(index)?;
        queue.turn += 1;
        if queue.turn >= queue.consumers.len() {
            queue.turn = 0;
        }
        queue.consumers.get_mut(queue.turn)
    }
}

impl Consumer {
    /// Appends the deliver frame of the next message; `route` is exchange and routing key as two short strings.
    #[inline]
    pub fn put_deliver(&mut self, route: &[u8], out: &mut Vec<u8>) {
        if self.template_route != route {
            self.make_template(route);
        }
        let at = out.len() + self.number_at;
        out.extend_from_slice(&self.template);
        if let Some(place) = out.get_mut(at..at + 8) {
            place.copy_from_slice(&self.next_delivery.to_be_bytes());
        }
        self.next_delivery += 1;
    }

    fn make_template(&mut self, route: &[u8]) {
        self.template.clear();
        wire::put_method(&mut self.template, self.channel, BASIC_DELIVER, |out| {
            out.push(u8::try_from(self.tag.len()).unwrap_or(u8::MAX));
            out.extend_from_slice(&self.tag);
            out.extend_from_slice(&[0; 9]);
            out.extend_from_slice(route);
        });
        self.number_at = wire::FRAME_PREFIX + 4 + 1 + self.tag.len();
        self.template_route = route.to_vec();
    }
}
