//! Which nodes this one sees: the driver of gossip, and what follows from seeing too few.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_meta::membership::{DATAGRAM_MAX_BYTES, Facts, Gossip, Input, Me, Output, Rejection};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::ground::Datagrams;

/// When nothing is to be done, the time is looked at so often.
const IDLE: Duration = Duration::from_secs(1);

/// What is known of the other nodes.
#[derive(Default)]
pub struct Sight {
    state: Mutex<State>,
    paused: AtomicBool,
    drained: AtomicBool,
    /// What the driver is told.
    orders: Mutex<Option<mpsc::UnboundedSender<Order>>>,
}

#[derive(Default)]
struct State {
    me: u64,
    up: BTreeMap<u64, u64>,
    /// Since when a node was not seen that was.
    down_since: BTreeMap<u64, Instant>,
    facts: BTreeMap<u64, Facts>,
    views: BTreeMap<u64, BTreeSet<u64>>,
}

enum Order {
    Members(Vec<(u64, SocketAddr)>),
    Facts(Box<Facts>),
}

impl Sight {
    /// The numbers of the nodes that are seen, this one among them.
    pub fn seen(&self) -> Vec<u64> {
        let state = self.lock();
        let mut seen: BTreeSet<u64> = state.up.keys().copied().collect();
        seen.insert(state.me);
        seen.into_iter().collect()
    }

    /// How long a node has not been seen; none: it is seen.
    pub fn missed_for(&self, node: u64) -> Option<Duration> {
        let mut state = self.lock();
        if node == state.me || state.up.contains_key(&node) {
            return None;
        }
        // One that was never seen is missed from now on.
        let since = *state.down_since.entry(node).or_insert_with(Instant::now);
        Some(since.elapsed())
    }

    /// What each node says of itself.
    pub fn facts(&self) -> BTreeMap<u64, Facts> {
        self.lock().facts.clone()
    }

    /// Who sees whom, as far as this node has heard.
    pub fn views(&self) -> BTreeMap<u64, BTreeSet<u64>> {
        self.lock().views.clone()
    }

    /// Whether this node does not serve clients because it sees too few others.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    /// It serves, or does not.
    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
    }

    /// Whether this node does not serve clients because an operator has said so.
    pub fn is_drained(&self) -> bool {
        self.drained.load(Ordering::SeqCst)
    }

    /// It is drained, or not; whether it was.
    pub fn drain(&self, drained: bool) -> bool {
        self.drained.swap(drained, Ordering::SeqCst)
    }

    /// The members and where they are.
    pub fn members(&self, members: Vec<(u64, SocketAddr)>) {
        self.order(Order::Members(members));
    }

    /// What this node says of itself.
    pub fn say(&self, facts: Facts) {
        self.order(Order::Facts(Box::new(facts)));
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &*self.orders.lock().unwrap_or_else(PoisonError::into_inner)
            && orders.send(order).is_err()
        {
            tracing::error!("gossip has ended");
        }
    }

    /// Starts to gossip.
    pub fn start(self: &Arc<Sight>, socket: Datagrams, me: Me, gossip: Gossip, on_change: impl Fn() + Send + 'static) {
        let (sender, orders) = mpsc::unbounded_channel();
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        self.lock().me = me.node;
        tokio::spawn(run(self.clone(), socket, gossip, orders, on_change));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nobody panics while holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, gossip: &Gossip) {
        let mut state = self.lock();
        let up: BTreeMap<u64, u64> = gossip.up().collect();
        let gone: Vec<u64> = state.up.keys().copied().filter(|node| !up.contains_key(node)).collect();
        for node in gone {
            state.down_since.insert(node, Instant::now());
        }
        state.down_since.retain(|node, _| !up.contains_key(node));
        state.views = gossip.views();
        let known = gossip.views().into_keys().filter_map(|node| Some((node, gossip.facts(node)?.clone())));
        state.facts = known.collect();
        state.up = up;
    }
}

async fn run(
    sight: Arc<Sight>,
    socket: Datagrams,
    mut gossip: Gossip,
    mut orders: mpsc::UnboundedReceiver<Order>,
    on_change: impl Fn(),
) {
    let mut buffer = vec![0; DATAGRAM_MAX_BYTES + 1];
    let mut out = Vec::new();
    loop {
        let due = gossip.next_timeout().map_or_else(|| Instant::now() + IDLE, Instant::from_std);
        let now = || Instant::now().into_std();
        tokio::select! {
            received = socket.receive(&mut buffer) => match received {
                Ok(octets) => {
                    gossip.step(now(), Input::Datagram(buffer.get(..octets).unwrap_or_default()), &mut out);
                }
                // That an earlier datagram met a closed port.
                Err(error) => tracing::trace!(%error, "a datagram was not received"),
            },
            order = orders.recv() => match order {
                Some(Order::Members(members)) => gossip.step(now(), Input::Members(members), &mut out),
                Some(Order::Facts(facts)) => gossip.step(now(), Input::Facts(*facts), &mut out),
                None => return,
            },
            () = sleep_until(due) => gossip.step(now(), Input::Time, &mut out),
        }
        let mut changed = false;
        for output in out.drain(..) {
            match output {
                Output::Send { to, octets } => {
                    // What is lost comes again.
                    if let Err(error) = socket.send(&octets, to) {
                        tracing::trace!(%to, %error, "a datagram was not sent");
                    }
                }
                Output::Up { node, .. } => {
                    tracing::info!(node, "a node of the cluster answers");
                    changed = true;
                }
                Output::Down { node, .. } => {
                    tracing::warn!(node, "a node of the cluster does not answer any more");
                    changed = true;
                }
                Output::Changed { .. } => changed = true,
                // A new member may be heard before it is known to be one.
                Output::Dropped(Rejection::Stranger) => {
                    tracing::debug!("a datagram of a node that is not known is dropped")
                }
                Output::Dropped(why) => tracing::warn!("datagrams of other nodes are dropped: {why}"),
                Output::FactsTooLong { octets } => {
                    tracing::warn!(octets, "what this node would tell the others of itself is too long");
                }
            }
        }
        if changed {
            sight.note(&gossip);
            on_change();
        }
    }
}
