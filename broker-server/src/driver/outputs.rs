//! What connections want done: one arm for each of their outputs.

use broker_amqp::{Exception, Input, Output, Reply, ReplyCode, Request, Settle, TxCommit, content};
use broker_core::message::Content;
use broker_core::queue::{self, ChannelKey, ChannelLimit, Publish};
use broker_core::store::QueueId;
use broker_core::topology::has_copy_keys;
use std::sync::Arc;

use super::client::Transaction;
use super::dispatch::Route;
use super::queues::TRANSACTION;
use super::replies::Replied;
use super::shard::Shard;

impl Shard {
    /// Carries out a connection's outputs in their order; what a refused publish leaves of its channel's is passed over. `octets` are those that
    /// the connection has just received: publishes may still lie in them.
    pub(super) fn carry_out(&mut self, place: usize, octets: &[u8], out: &mut Vec<Output>) {
        let mut a_publish_failed = false;
        let mut more = Vec::new();
        loop {
            let mut outputs = out.drain(..);
            loop {
                let routed = self.publish_run(place, octets, outputs.as_slice(), a_publish_failed);
                if routed > 0 {
                    outputs.nth(routed - 1);
                    continue;
                }
                let Some(output) = outputs.next() else { break };
                if a_publish_failed && self.is_passed_over(place, &output) {
                    continue;
                }
                if let Output::Settle(settle) = &output
                    && settle.outcome == broker_amqp::Outcome::Requeue
                    && is_closing(settle.channel, outputs.as_slice())
                {
                    // What a closing channel gives back must not go to its own consumers.
                    self.cancel_consumers(place, settle.channel);
                }
                a_publish_failed |= !self.carry_out_one(place, octets, output, &mut more);
            }
            drop(outputs);
            if more.is_empty() {
                break;
            }
            std::mem::swap(out, &mut more);
        }
        self.give_back();
        self.publish_letters();
        self.answer_transactions();
    }

    /// Hands the publishes that these outputs begin with to their queues, as far as they have the same remembered route. Returns how many they were.
    fn publish_run(&mut self, place: usize, octets: &[u8], outputs: &[Output], a_publish_failed: bool) -> usize {
        let Some(Output::Publish { content, .. }) = outputs.first() else { return 0 };
        if a_publish_failed {
            return 0;
        }
        let Some(client) = self.clients.get_mut(place).filter(|client| !self.parts.tracing.sees(client)) else {
            return 0;
        };
        let Some(route) = client.routes.find(self.generation, content.content(octets).route()) else { return 0 };
        let number = client.number;
        let mut bytes_to_store = 0;
        let goes_there = |output: &&Output| {
            let Output::Publish { content, .. } = output else { return false };
            let content = content.content(octets);
            if *content.route() != *route.key || !matches!(has_copy_keys(content.header()), Ok(false)) {
                return false;
            }
            bytes_to_store += route.to_store(content);
            true
        };
        let count = outputs.iter().take_while(goes_there).count();
        let publishes = outputs.iter().take(count).filter_map(|output| match output {
            Output::Publish { channel, publish_seq, content, .. } => {
                let channel = ChannelKey { connection: number, channel: *channel };
                Some(Publish { channel, publish_seq: *publish_seq, content: content.content(octets) })
            }
            _ => None,
        });
        if count > 0 {
            client.has_published(&route, bytes_to_store);
            self.publish_to_all(&route, bytes_to_store, publishes);
        }
        count
    }

    /// Everything but runs of publishes. Returns whether all channels it concerned are still well.
    fn carry_out_one(&mut self, place: usize, octets: &[u8], output: Output, more: &mut Vec<Output>) -> bool {
        match output {
            Output::Publish { channel, mandatory, publish_seq, content } => {
                let content = content.content(octets);
                let route = match self.route(place, content) {
                    Ok(route) => route,
                    Err(exception) => {
                        self.fail(place, channel, exception, more);
                        return false;
                    }
                };
                if let Some(client) = self.clients.get(place) {
                    let channel = client.channel_key(channel);
                    self.publish_routed(place, mandatory, Publish { channel, publish_seq, content }, &route);
                }
            }
            Output::Settle(settle) => self.settle(place, settle),
            Output::Request { channel, request } => self.request(place, channel, *request, more),
            Output::ChannelLimit { channel, limit } => self.limit_channel(place, channel, limit),
            Output::ChannelOpened { .. } => self.channels_changed(place),
            Output::ChannelClosed { channel } => {
                self.channels_changed(place);
                self.cancel_consumers(place, channel);
            }
            Output::PublishInvalid { channel, message, exception } => {
                let exception = self.publishable(place, Content::Kept(&message)).err().unwrap_or(*exception);
                self.fail(place, channel, exception, more);
                return false;
            }
            Output::TxPublish { channel, message } => {
                if let Err(exception) = self.publishable(place, Content::Kept(&message)) {
                    self.fail(place, channel, exception, more);
                    return false;
                }
            }
            Output::TxCommit(commit) => self.commit_transaction(place, *commit),
            Output::Login(login) => self.check_login(place, *login, more),
            Output::Open { vhost } => self.open_vhost(place, &vhost, more),
            Output::ConnectionClosing => self.say_goodbye(place, more),
            Output::PublisherBlocked => {
                if let Some(client) = self.clients.get_mut(place) {
                    client.blocked = true;
                }
            }
            Output::Close { reason } => self.close_client(place, &reason),
        }
        true
    }

    /// Hands a message to the queues of its route; if there are none, back to the client where it must not get lost. Returns whether it will be answered.
    fn publish_routed(&mut self, place: usize, mandatory: bool, publish: Publish<'_>, route: &Route) -> bool {
        let Publish { channel, publish_seq, content: published } = publish;
        let copies = matches!(has_copy_keys(published.header()), Ok(true));
        let stripped = copies.then(|| content::without_bcc(&published.keep())).flatten();
        let content = stripped.as_ref().map_or(published, Content::Kept);
        self.trace_publish(place, channel.channel, published, content, route);
        let replied = self.deliver_replies(place, &publish, content, mandatory && route.queues.is_empty());
        if !route.kept_by.is_empty() {
            self.keep(&route.kept_by, content);
        }
        if replied == Replied::Asked {
            return true;
        }
        let Some(client) = self.clients.get_mut(place) else { return false };
        // What is held back has not been routed yet.
        if mandatory && replied == Replied::Nowhere && route.queues.len() == route.held {
            client.amqp.returned(channel.channel, &content.keep());
        }
        if route.queues.is_empty() {
            if publish_seq != 0 && publish_seq & TRANSACTION == 0 {
                client.amqp.confirm(channel.channel, publish_seq);
            }
            return false;
        }
        let bytes_to_store = route.to_store(content);
        client.has_published(route, bytes_to_store);
        self.publish_to_all(route, bytes_to_store, std::iter::once(Publish { channel, publish_seq, content }));
        true
    }

    fn fail(&mut self, place: usize, channel: u16, exception: Exception, more: &mut Vec<Output>) {
        if let Some(client) = self.clients.get_mut(place) {
            client.amqp.fail(channel, exception, more);
        }
    }

    fn channel_is_gone(&self, place: usize, channel: u16) -> bool {
        self.clients.get(place).is_none_or(|client| !client.amqp.channel_is_open(channel))
    }

    /// After an exception, what its channel had sent behind the failed publish does not happen.
    fn is_passed_over(&self, place: usize, output: &Output) -> bool {
        match output {
            Output::Publish { channel, .. }
            | Output::PublishInvalid { channel, .. }
            | Output::TxPublish { channel, .. }
            | Output::Request { channel, .. } => self.channel_is_gone(place, *channel),
            Output::TxCommit(commit) => self.channel_is_gone(place, commit.channel),
            _ => false,
        }
    }

    fn settle(&mut self, place: usize, settle: Settle) {
        let Settle { channel, queue, consumer, first, last, outcome } = settle;
        let Some(client) = self.clients.get_mut(place) else { return };
        // Room under the channel's limit first, so that the queue can hand on at once.
        let limited = consumer != broker_amqp::GET;
        let limit = limited.then(|| client.limit(channel).cloned()).flatten();
        if let Some(limit) = &limit {
            limit.add(i64::try_from(last - first + 1).unwrap_or(i64::MAX));
        }
        let outcome = match outcome {
            broker_amqp::Outcome::Ack => queue::Outcome::Ack,
            broker_amqp::Outcome::Requeue => queue::Outcome::Requeue,
            broker_amqp::Outcome::Discard => queue::Outcome::Discard,
        };
        self.feed(QueueId(queue), queue::Input::Settle { first, last, outcome });
        if limit.is_some() {
            self.limit_has_room(place, channel);
        }
    }

    /// Every consumer of a channel may have something coming.
    fn limit_has_room(&mut self, place: usize, channel: u16) {
        let Some(client) = self.clients.get(place) else { return };
        let key = client.channel_key(channel);
        for (queue, no_ack, key) in client.consumers_of(channel) {
            if !no_ack {
                self.feed(queue, queue::Input::LimitRoom(key));
            }
        }
        self.release_held(key);
    }

    /// `basic.qos` with global set. Consumers of the channel hold the limit already; it only gets more or less room.
    fn limit_channel(&mut self, place: usize, channel: u16, limit: u16) {
        const NO_LIMIT: i64 = i64::MAX / 2;
        let Some(client) = self.clients.get_mut(place) else { return };
        let room = |limit: u16| if limit == 0 { NO_LIMIT } else { i64::from(limit) };
        match client.limits.iter_mut().find(|(other, ..)| *other == channel) {
            Some((_, shared, earlier)) => {
                shared.add(room(limit) - room(*earlier));
                *earlier = limit;
            }
            None => {
                let held = client.amqp.unacknowledged(channel);
                let shared = Arc::new(ChannelLimit::new(room(limit) - i64::try_from(held).unwrap_or(i64::MAX)));
                client.limits.push((channel, shared.clone(), limit));
                for (queue, _, key) in client.consumers_of(channel) {
                    self.feed(queue, queue::Input::Limit { key, limit: shared.clone() });
                }
            }
        }
        self.limit_has_room(place, channel);
    }

    fn commit_transaction(&mut self, place: usize, commit: TxCommit) {
        let TxCommit { channel, publishes, settles } = commit;
        let Some(client) = self.clients.get_mut(place) else { return };
        let after = client.transaction_publishes;
        client.transactions.push_back(Transaction { channel, after, missing: u64::MAX, refused: false });
        let mut wanted = 0;
        for (mandatory, message) in publishes {
            let content = Content::Kept(&message);
            let Ok(route) = self.route(place, content) else {
                // The exchange went away between publish and commit: as for any publish nobody takes, nothing to wait for.
                continue;
            };
            let Some(client) = self.clients.get_mut(place) else { return };
            // Counted before it is handed over: it may be confirmed at once.
            client.transaction_publishes += 1;
            let publish_seq = TRANSACTION | client.transaction_publishes;
            let channel = client.channel_key(channel);
            wanted +=
                u64::from(self.publish_routed(place, mandatory, Publish { channel, publish_seq, content }, &route));
        }
        for settle in settles {
            self.settle(place, settle);
        }
        let Some(client) = self.clients.get_mut(place) else { return };
        let number = client.number;
        if let Some(at) = client.transactions.iter().rposition(|transaction| transaction.channel == channel) {
            let transaction = &mut client.transactions[at];
            // Answers may have come already: they were taken from the largest number there is.
            let answered = u64::MAX - transaction.missing;
            transaction.missing = wanted - answered.min(wanted);
            if transaction.missing == 0 {
                self.committed_transactions.push((number, channel, transaction.refused));
                client.transactions.remove(at);
            }
        }
    }

    /// Says commit-ok where all of a transaction is stored, or that a queue has refused some of it.
    pub(super) fn answer_transactions(&mut self) {
        for (number, channel, refused) in std::mem::take(&mut self.committed_transactions) {
            let Some(place) = self.place_of(number) else { continue };
            let answer = if refused {
                let exception = Exception::new(ReplyCode::PreconditionFailed, "partial tx completion");
                Input::Reply { channel, reply: Reply::Refused(exception) }
            } else {
                Input::TxCommitted { channel }
            };
            self.tell(place, answer);
        }
    }
}

/// Whether what follows a channel's giving back is its end.
fn is_closing(channel: u16, following: &[Output]) -> bool {
    let next = following.iter().find(|output| !matches!(output, Output::Settle(settle) if settle.channel == channel));
    match next {
        Some(Output::ChannelClosed { channel: closed }) => *closed == channel,
        Some(Output::Request { channel: asking, request }) => {
            *asking == channel && matches!(**request, Request::ChannelClose)
        }
        _ => false,
    }
}
