//! Nodes in a simulated network: datagrams are lost, late, doubled and turned round, directions are cut, nodes end, start again and stand still. All from a
//! seed; the same seed gives the same.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use proptest::prelude::*;

use super::*;

const STEP: Duration = Duration::from_millis(10);
const CLUSTER: [u8; 16] = [3; 16];

fn secret(octet: u8) -> Secret {
    Secret::from_content(&[octet; 32]).unwrap()
}

fn address(node: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node as u8], 25672))
}

struct Node {
    gossip: Gossip,
    /// It stands still until then.
    asleep_until: Option<Instant>,
    /// Told up, by what it said.
    up: BTreeMap<u64, u64>,
}

struct World {
    now: Instant,
    began: Instant,
    dice: StdRng,
    nodes: BTreeMap<u64, Node>,
    count: u64,
    incarnations: BTreeMap<u64, u64>,
    /// On their way: when they arrive, and where.
    on_the_way: Vec<(Instant, u64, Vec<u8>)>,
    cuts: BTreeSet<(u64, u64)>,
    loss: u32,
    delay_ms: u64,
    /// Everything that was ever sent, for whoever wants to send it again.
    captured: Vec<(u64, Vec<u8>)>,
    octets_sent: usize,
    trace: DefaultHasher,
    downs: Vec<(u64, u64)>,
}

impl World {
    fn new(count: u64, seed: u64) -> World {
        let now = Instant::now();
        let mut world = World {
            now,
            began: now,
            dice: StdRng::seed_from_u64(seed),
            nodes: BTreeMap::new(),
            count,
            incarnations: BTreeMap::new(),
            on_the_way: Vec::new(),
            cuts: BTreeSet::new(),
            loss: 0,
            delay_ms: 5,
            captured: Vec::new(),
            octets_sent: 0,
            trace: DefaultHasher::new(),
            downs: Vec::new(),
        };
        for node in 1..=count {
            world.start(node);
        }
        world
    }

    fn start(&mut self, node: u64) {
        let incarnation = self.incarnations.entry(node).or_default();
        *incarnation += 1;
        let me = Me { cluster: CLUSTER, node, incarnation: *incarnation, address: address(node) };
        let gossip = Gossip::new(self.now, me, secret(1), self.dice.random());
        self.nodes.insert(node, Node { gossip, asleep_until: None, up: BTreeMap::new() });
        let members = (1..=self.count).map(|node| (node, address(node))).collect();
        self.feed(node, Input::Members(members));
    }

    fn feed(&mut self, node: u64, input: Input<'_>) {
        let mut out = Vec::new();
        let Some(at) = self.nodes.get_mut(&node) else { return };
        at.gossip.step(self.now, input, &mut out);
        for output in out {
            let since = self.now - self.began;
            match output {
                Output::Send { to, octets } => {
                    assert!(octets.len() <= DATAGRAM_MAX_BYTES);
                    let SocketAddr::V4(to) = to else { panic!("{to}") };
                    let to = u64::from(to.ip().octets()[3]);
                    (node, to, &octets, since).hash(&mut self.trace);
                    self.octets_sent += octets.len();
                    self.captured.push((to, octets.clone()));
                    self.carry(node, to, octets);
                }
                Output::Up { node: other, incarnation } => {
                    ("up", node, other, incarnation, since).hash(&mut self.trace);
                    self.nodes.get_mut(&node).unwrap().up.insert(other, incarnation);
                }
                Output::Down { node: other, incarnation } => {
                    ("down", node, other, incarnation, since).hash(&mut self.trace);
                    self.downs.push((node, other));
                    self.nodes.get_mut(&node).unwrap().up.remove(&other);
                }
                Output::Changed { .. } => {}
                Output::Dropped(why) => panic!("{why}"),
                Output::FactsTooLong { octets } => panic!("{octets}"),
            }
        }
    }

    fn carry(&mut self, from: u64, to: u64, octets: Vec<u8>) {
        if self.cuts.contains(&(from, to)) {
            return;
        }
        for _ in 0..1 + u32::from(self.dice.random_range(0..100) < 3) {
            if self.dice.random_range(0..100) >= self.loss {
                let late = Duration::from_millis(self.dice.random_range(0..=self.delay_ms));
                self.on_the_way.push((self.now + late, to, octets.clone()));
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.now += STEP;
            let (due, later): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.on_the_way).into_iter().partition(|(at, ..)| *at <= self.now);
            self.on_the_way = later;
            for (_, to, octets) in due {
                if self.awake(to) {
                    self.feed(to, Input::Datagram(&octets));
                }
            }
            for node in 1..=self.count {
                let due = |at: &Node| at.gossip.next_timeout().is_some_and(|timeout| timeout <= self.now);
                if self.awake(node) && self.nodes.get(&node).is_some_and(due) {
                    self.feed(node, Input::Time);
                }
            }
        }
    }

    fn awake(&self, node: u64) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.asleep_until.is_none_or(|until| until <= self.now))
    }

    fn isolate(&mut self, node: u64) {
        for other in 1..=self.count {
            self.cuts.extend([(node, other), (other, node)]);
        }
    }

    /// How long it takes until something is so.
    fn until(&mut self, what: &str, bound: Duration, is: impl Fn(&World) -> bool) -> Duration {
        let began = self.now;
        while !is(self) {
            assert!(self.now - began < bound, "not within {bound:?}: {what}");
            self.run(STEP);
        }
        self.now - began
    }

    /// All that run see each other's latest start, and have the same facts.
    fn agrees(&self) -> bool {
        let running: BTreeMap<u64, u64> = self.nodes.keys().map(|node| (*node, self.incarnations[node])).collect();
        self.nodes.iter().all(|(me, node)| {
            let up: BTreeMap<u64, u64> = node.gossip.up().collect();
            let others = running.iter().filter(|(other, _)| *other != me);
            up == node.up
                && up == others.map(|(node, incarnation)| (*node, *incarnation)).collect()
                && running.keys().all(|of| {
                    let theirs = self.nodes[of].gossip.facts(*of);
                    node.gossip.facts(*of) == theirs
                })
        })
    }

    fn alarm(&mut self, node: u64, connections: u64) {
        let facts = Facts { memory_alarm: true, connections, ..Facts::default() };
        self.feed(node, Input::Facts(facts));
    }
}

const SOON: Duration = Duration::from_secs(20);

/// A node that was cut off may hear first that a later start of another one, of which it knew nothing, is over as well.
#[test]
fn whoever_starts_and_ends_while_others_are_cut_off_is_seen_by_nobody_once_it_has_ended() {
    for seed in 0..100 {
        let mut world = World::new(4, seed);
        world.run(Duration::from_secs(3));
        for _ in 0..14 {
            let node = world.dice.random_range(1..=4);
            match world.dice.random_range(0..4) {
                0 => world.isolate(node),
                1 => world.cuts.clear(),
                // One stays, so that there is somebody to see nobody.
                2 if world.nodes.len() > 1 => drop(world.nodes.remove(&node)),
                _ if !world.nodes.contains_key(&node) => world.start(node),
                _ => {}
            }
            let time = world.dice.random_range(300..5000);
            world.run(Duration::from_millis(time));
        }
        world.cuts.clear();
        world.until(&format!("they agree (seed {seed})"), SOON, World::agrees);
    }
}

#[test]
fn nodes_that_start_together_find_each_other() {
    for seed in 0..60 {
        let mut world = World::new(2 + seed % 6, seed);
        // The first calls come from nodes whose network is not there yet.
        for node in 1..=world.count {
            world.isolate(node);
        }
        world.on_the_way.clear();
        world.run(Duration::from_secs(2));
        world.cuts.clear();
        world.loss = 10;
        world.until("agreement", SOON, World::agrees);
        // Who sees whom is known everywhere.
        let all: BTreeSet<u64> = (1..=world.count).collect();
        for node in world.nodes.values() {
            for (of, seen) in node.gossip.views() {
                let others: BTreeSet<u64> = all.iter().copied().filter(|other| *other != of).collect();
                assert_eq!(seen, others, "seed {seed}");
            }
        }
    }
}

/// A node that joins applies the log bit by bit: for a while it knows fewer members than those it talks to.
#[test]
fn who_was_told_of_before_it_was_a_member_is_seen() {
    for seed in 0..20 {
        let mut world = World::new(4, 7000 + seed);
        world.until("agreement", SOON, World::agrees);
        world.nodes.remove(&4);
        world.on_the_way.clear();
        for other in 2..=3 {
            world.cuts.extend([(4, other), (other, 4)]);
        }
        world.start(4);
        world.feed(4, Input::Members(vec![(1, address(1)), (4, address(4))]));
        world.run(Duration::from_secs(2));
        world.cuts.clear();
        let members = (1..=4).map(|node| (node, address(node))).collect();
        world.feed(4, Input::Members(members));
        world.until("that all are seen", SOON, World::agrees);
    }
}

#[test]
fn a_death_is_noticed_and_nothing_else() {
    let mut longest = Duration::ZERO;
    for seed in 0..60 {
        let mut world = World::new(5, 1000 + seed);
        world.loss = 5;
        world.until("agreement", SOON, World::agrees);
        world.run(Duration::from_secs(10));
        assert_eq!(world.downs, [], "seed {seed}: taken for down while it ran");
        world.nodes.remove(&2);
        let noticed = |world: &World| world.nodes.values().all(|node| !node.up.contains_key(&2));
        longest = longest.max(world.until("the death", Duration::from_secs(8), noticed));
        world.run(Duration::from_secs(5));
        assert!(world.downs.iter().all(|(_, down)| *down == 2), "seed {seed}: {:?}", world.downs);
        // It comes back as another start, and what it said before counts no more.
        world.start(2);
        world.until("its return", SOON, World::agrees);
    }
    assert!(longest > Duration::from_secs(1), "{longest:?}");
}

#[test]
fn a_cut_in_one_direction_or_both_heals() {
    for seed in 0..60 {
        let mut world = World::new(5, 2000 + seed);
        world.until("agreement", SOON, World::agrees);
        if seed % 3 == 0 {
            world.isolate(3);
        } else {
            let (from, to) = (1 + seed % 5, 1 + (seed + seed % 4 + 1) % 5);
            world.cuts.insert((from, to));
        }
        world.run(Duration::from_secs(10 + seed % 7));
        if seed % 3 != 0 {
            // Others reach both: they are asked to look, and nobody is taken for down for good.
            world.run(Duration::from_secs(5));
            let seen = world.nodes.values().map(|node| node.up.len()).sum::<usize>();
            assert!(seen >= 18, "seed {seed}: {seen} of 20");
        } else {
            assert!(world.nodes[&1].up.len() == 3 && world.nodes[&3].up.is_empty(), "seed {seed}");
        }
        world.cuts.clear();
        world.until("agreement after the heal", SOON, World::agrees);
    }
}

#[test]
fn an_alarm_reaches_everybody() {
    for seed in 0..60 {
        let mut world = World::new(7, 3000 + seed);
        world.until("agreement", SOON, World::agrees);
        world.loss = 20;
        // One that is cut off hears of it when it is back.
        world.isolate(7);
        world.run(Duration::from_secs(1));
        world.alarm(4, seed);
        let heard = |world: &World, all: u64| {
            (1..=all).all(|node| world.nodes[&node].gossip.facts(4).is_some_and(|facts| facts.memory_alarm))
        };
        world.until("the alarm", Duration::from_secs(6), |world| heard(world, 6));
        world.cuts.clear();
        world.until("the alarm, later", SOON, |world| heard(world, 7));
        assert_eq!(world.nodes[&7].gossip.facts(4).unwrap().connections, seed);
    }
}

#[test]
fn who_stood_still_does_not_blame_the_others() {
    for seed in 0..60 {
        let mut world = World::new(5, 4000 + seed);
        world.until("agreement", SOON, World::agrees);
        world.run(Duration::from_secs(2));
        // Its network goes first: it begins to suspect them, and was not there when they objected.
        world.isolate(1);
        world.run(Duration::from_millis(1200));
        world.nodes.get_mut(&1).unwrap().asleep_until = Some(world.now + Duration::from_secs(8));
        world.cuts.clear();
        world.run(Duration::from_secs(8));
        // The others noticed. It wakes up, and finds everybody where they were.
        assert!(world.downs.iter().all(|(_, down)| *down == 1), "seed {seed}: {:?}", world.downs);
        world.downs.clear();
        world.until("its return", SOON, World::agrees);
        assert!(world.downs.iter().all(|(by, _)| *by != 1), "seed {seed}: {:?}", world.downs);
    }
}

#[test]
fn what_was_captured_changes_nothing() {
    let mut world = World::new(4, 77);
    world.until("agreement", SOON, World::agrees);
    world.alarm(2, 5);
    world.run(Duration::from_secs(3));
    let captured = world.captured.clone();
    world.feed(2, Input::Facts(Facts { connections: 6, ..Facts::default() }));
    world.run(Duration::from_secs(3));
    let before: Vec<_> = world.nodes.values().map(|node| (node.up.clone(), node.gossip.facts(2).cloned())).collect();
    for (to, octets) in captured {
        let mut out = Vec::new();
        world.nodes.get_mut(&to).unwrap().gossip.step(world.now, Input::Datagram(&octets), &mut out);
        assert_eq!(out, [], "a repeated datagram was answered");
    }
    let after: Vec<_> = world.nodes.values().map(|node| (node.up.clone(), node.gossip.facts(2).cloned())).collect();
    assert_eq!(before, after);
    let dropped: BTreeMap<Rejection, u64> = world.nodes[&1].gossip.dropped().collect();
    assert!(dropped[&Rejection::Repeated] > 20);
}

#[test]
fn strangers_are_not_heard_and_are_told_of_now_and_then() {
    let mut world = World::new(2, 5);
    world.until("agreement", SOON, World::agrees);
    let me = |cluster, node| Me { cluster, node, incarnation: 1, address: address(node) };
    let said = |me: Me, secret: Secret| {
        let mut stranger = Gossip::new(world.now, me, secret, 1);
        let mut out = Vec::new();
        stranger.step(world.now, Input::Members(vec![(1, address(1))]), &mut out);
        out.into_iter().find_map(|output| match output {
            Output::Send { octets, .. } => Some(octets),
            _ => None,
        })
    };
    let cases = [
        (said(me(CLUSTER, 2), secret(9)), Rejection::NotAuthenticated),
        (said(me([4; 16], 2), secret(1)), Rejection::AnotherCluster),
        (said(me(CLUSTER, 9), secret(1)), Rejection::Stranger),
    ];
    let mut gossip = world.nodes.remove(&1).unwrap().gossip;
    let before = gossip.up().collect::<Vec<_>>();
    for (octets, why) in cases {
        let octets = octets.unwrap();
        let mut newer = octets.clone();
        newer[4] = 9;
        for (octets, why) in [(octets, why), (newer, Rejection::Newer)] {
            let mut out = Vec::new();
            gossip.step(world.now, Input::Datagram(&octets), &mut out);
            gossip.step(world.now, Input::Datagram(&octets), &mut out);
            // Once, and not again for a while.
            let first = out.is_empty() || out == [Output::Dropped(why)];
            assert!(first && gossip.dropped().any(|(dropped, count)| dropped == why && count >= 2), "{why}: {out:?}");
        }
    }
    assert_eq!(gossip.up().collect::<Vec<_>>(), before);
}

#[test]
fn facts_that_do_not_fit_are_not_spread_in_part() {
    let now = Instant::now();
    let me = Me { cluster: CLUSTER, node: 1, incarnation: 1, address: address(1) };
    let mut gossip = Gossip::new(now, me, secret(1), 1);
    let mut out = Vec::new();
    gossip.step(now, Input::Facts(Facts { queues: 3, ..Facts::default() }), &mut out);
    gossip.step(now, Input::Facts(Facts { software: "x".repeat(1000), ..Facts::default() }), &mut out);
    assert!(matches!(out[..], [Output::FactsTooLong { octets: 1000.. }]), "{out:?}");
    assert_eq!(gossip.facts(1).unwrap().queues, 3);
}

#[test]
fn the_same_seed_gives_the_same() {
    let trace = |seed| {
        let mut world = World::new(5, seed);
        world.loss = 10;
        world.run(Duration::from_secs(5));
        world.nodes.remove(&3);
        world.run(Duration::from_secs(5));
        (world.trace.finish(), world.octets_sent)
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

#[test]
fn a_quiet_cluster_says_little() {
    let mut world = World::new(5, 1);
    world.until("agreement", SOON, World::agrees);
    world.run(Duration::from_secs(30));
    let before = world.octets_sent;
    world.run(Duration::from_secs(60));
    let each = (world.octets_sent - before) / 60 / 5;
    assert!((100..3_000).contains(&each), "{each} octets a second and node");
}

#[test]
fn a_window_takes_each_once() {
    let mut window = Window::default();
    let mut take = |incarnation, sequence| window.is_new(incarnation, sequence);
    assert!(take(1, 5) && !take(1, 5) && take(1, 3) && !take(1, 3) && !take(1, 0));
    assert!(take(1, 100) && take(1, 37) && !take(1, 36) && !take(1, 37));
    assert!(take(1, 1000) && take(1, 999) && !take(1, 100));
    assert!(take(2, 1) && !take(1, 2000) && !take(2, 1));
    assert!(take(2, u64::MAX) && !take(2, 1));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Also signed ones: a node of another version may say anything.
    #[test]
    fn any_octets_are_dropped_or_taken(carried in prop::collection::vec(any::<u8>(), 0..1000), kind in 0..4_u8, sequence in 1..100_u64) {
        let mut world = World::new(2, 6);
        world.run(Duration::from_secs(2));
        let mut gossip = world.nodes.remove(&1).unwrap().gossip;
        let kind = [Kind::Probe, Kind::Digest, Kind::Facts][usize::from(kind) % 3];
        let octets = if kind as u8 == 0 { carried } else { datagram::seal(&secret(1), &CLUSTER, (2, 5, sequence), kind, &carried) };
        let mut out = Vec::new();
        gossip.step(world.now, Input::Datagram(&octets), &mut out);
        prop_assert!(out.len() < 200);
    }
}
