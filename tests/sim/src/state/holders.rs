//! Exchanges that hold messages back, on both sides: each a queue nobody can name, and a list of what is due when.

use std::sync::Arc;

use broker_core::dead_letter::Reason;
use broker_core::exchange::with_delay_over;
use broker_core::queue::{Input, Outcome, Publish, Queue, Rules};
use broker_core::topology::ExchangeRecord;

use super::content::{Content, number};
use super::subject::{Seen, Subject};
use super::world::{World, same};

/// See the module's page.
pub struct Holder {
    pub vhost: String,
    pub name: String,
    subject: Subject,
    /// What is held back, in the order it came, and when it is due.
    held: Vec<(u64, Content)>,
    /// Messages on their way.
    leaving: u64,
}

impl Holder {
    pub fn wants_flush(&self) -> bool {
        self.subject.queue.wants_flush()
    }
}

impl World {
    pub fn create_holder(&mut self, exchange: &ExchangeRecord) {
        let Some(id) = exchange.holder else { return };
        let queue = Queue::new(exchange.durable, Arc::new(Rules::holding_back()), self.now_ms);
        let (vhost, name) = (exchange.vhost.as_str().to_owned(), exchange.name.as_str().to_owned());
        let (subject, held) = (Subject::new(queue), Vec::new());
        self.holders.insert(id.0, Holder { vhost, name, subject, held, leaving: 0 });
    }

    pub fn drop_holders(&mut self, gone: impl Fn(&Holder) -> bool) -> Result<(), String> {
        let ids: Vec<u64> = self.holders.iter().filter(|(_, holder)| gone(holder)).map(|(id, _)| *id).collect();
        for id in ids {
            let Some(mut holder) = self.holders.remove(&id) else { continue };
            let seen = holder.subject.step(self.now_ms, Input::Delete)?;
            self.answered(seen.confirmed.into_iter().chain(seen.refused))?;
        }
        Ok(())
    }

    pub fn hold_back(&mut self, id: u64, publish: Publish<'_>, content: &Content) -> Result<(), String> {
        let now_ms = self.now_ms;
        let holder = self.holder(id)?;
        let delay_ms = content.delay_ms().ok_or("held back without a delay")?;
        holder.held.push((now_ms + delay_ms, content.clone()));
        let seen = holder.subject.publish(now_ms, publish)?;
        self.tally.held_back += 1;
        self.seen_of_holder(id, seen, &[])
    }

    /// What is due goes on.
    pub fn let_go(&mut self) -> Result<(), String> {
        for id in self.holders.keys().copied().collect::<Vec<_>>() {
            let now_ms = self.now_ms;
            let holder = self.holder(id)?;
            let (mut due, held): (Vec<_>, Vec<_>) =
                std::mem::take(&mut holder.held).into_iter().partition(|(at_ms, _)| *at_ms <= now_ms);
            holder.held = held;
            due.sort_by_key(|(at_ms, _)| *at_ms);
            let wants = holder.subject.queue.next_timeout().is_some_and(|at_ms| at_ms <= now_ms);
            let seen = if wants { holder.subject.step(now_ms, Input::Time)? } else { Seen::default() };
            let due: Vec<Content> = due.into_iter().map(|(_, content)| content).collect();
            self.seen_of_holder(id, seen, &due)?;
        }
        Ok(())
    }

    /// Everything that is held back becomes due.
    pub fn release_all(&mut self) -> Result<(), String> {
        let latest = self.holders.values().flat_map(|holder| &holder.held).map(|(at_ms, _)| *at_ms).max();
        self.now_ms = self.now_ms.max(latest.unwrap_or_default());
        self.let_time_pass()?;
        self.settle_everything()?;
        for holder in self.holders.values() {
            same("left behind by an exchange that held messages back", holder.subject.leftovers(), None)?;
        }
        Ok(())
    }

    pub fn flush_holders(&mut self) -> Result<(), String> {
        let now_ms = self.now_ms;
        for id in self.holders.keys().copied().collect::<Vec<_>>() {
            while let Ok(holder) = self.holder(id)
                && holder.subject.queue.wants_flush()
            {
                let seen = holder.subject.flush(now_ms)?;
                self.seen_of_holder(id, seen, &[])?;
            }
        }
        Ok(())
    }

    /// Everybody a message went to has it.
    pub fn held_is_safe(&mut self, id: u64, tag: u64) -> Result<(), String> {
        let now_ms = self.now_ms;
        let holder = self.holder(id)?;
        holder.leaving -= 1;
        let seen = holder.subject.step(now_ms, Input::Settle { first: tag, last: tag, outcome: Outcome::Ack })?;
        self.seen_of_holder(id, seen, &[])
    }

    fn holder(&mut self, id: u64) -> Result<&mut Holder, String> {
        self.holders.get_mut(&id).ok_or_else(|| format!("nothing holds messages back as queue {id}"))
    }

    fn seen_of_holder(&mut self, id: u64, seen: Seen, due: &[Content]) -> Result<(), String> {
        let holder = self.holder(id)?;
        holder.leaving += due.len() as u64;
        let (vhost, name) = (holder.vhost.clone(), holder.name.clone());
        let (waiting, leaving) = (holder.held.len() as u64, holder.leaving);
        let found = seen.letters.iter().map(|(_, reason, message)| (number(message), *reason));
        let expected = due.iter().map(|content| (content.number, Reason::Due));
        let of = format!("{name} of {vhost}");
        same(&format!("no longer held back by {of}"), found.collect::<Vec<_>>(), expected.collect())?;
        let queue = &self.holder(id)?.subject.queue;
        let found = (queue.ready_count(), queue.unacked_count(), seen.delivered.len(), seen.refused.len());
        same(
            &format!("ready, unacked, delivered and refused by {of}, {waiting} wait, {leaving} leave"),
            found,
            (0, 0, 0, 0),
        )?;
        for ((tag, _, message), content) in seen.letters.iter().zip(due) {
            let header = with_delay_over(message.header()).ok_or("a delay that cannot be over")?;
            let message = message.changed(message.route(), &header, message.hidden_keys()).ok_or("no message")?;
            let content = content.no_longer_delayed();
            same("no longer delayed", Content::read(&message).as_ref(), Some(&content))?;
            self.tell(|| format!("  {of} lets go of {content:?}"));
            let to = self.route(&vhost, &name, &content, &message)?.unwrap_or_default();
            self.send_letter(id, *tag, to, &message, &content)?;
        }
        self.answered(seen.confirmed.into_iter().chain(seen.refused))
    }
}
