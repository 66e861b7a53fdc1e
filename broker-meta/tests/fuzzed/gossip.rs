//! Datagrams of other nodes: any octets, those of a member that says anything, and probes of its own making.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use broker_meta::membership::{DATAGRAM_MAX_BYTES, Facts, Gossip, Input, Me, Output};

use super::{CLUSTER, Choices, secret, sign};

const ME: u64 = 1;
/// Numbers of nodes that are spoken of, members or not.
const NODES: u64 = 6;

/// A node to which things happen, as the octets have it.
pub fn live(octets: &[u8]) {
    let mut choices = Choices(octets);
    let mut now = Instant::now();
    let me = Me { cluster: CLUSTER, node: ME, incarnation: 5, address: address(ME) };
    let mut gossip = Gossip::new(now, me, secret(), choices.next().into());
    let mut members: BTreeSet<u64> = (1..=3).collect();
    let mut sequence = 0;
    let everybody = |members: &BTreeSet<u64>| members.iter().map(|node| (*node, address(*node))).collect();
    let mut out = Vec::new();
    gossip.step(now, Input::Members(everybody(&members)), &mut out);
    while !choices.0.is_empty() {
        out.clear();
        sequence += 1;
        match choices.next() % 8 {
            0 => {
                now += Duration::from_millis(u64::from(choices.next()) * 10);
                gossip.step(now, Input::Time, &mut out);
            }
            1 => {
                now = gossip.next_timeout().unwrap_or(now).max(now);
                gossip.step(now, Input::Time, &mut out);
            }
            2 => {
                let mask = choices.next();
                members = (1..=NODES).filter(|node| mask & (1 << node) != 0).collect();
                gossip.step(now, Input::Members(everybody(&members)), &mut out);
            }
            3 => {
                let (connections, len) = (choices.next().into(), choices.next());
                let software = "x".repeat(usize::from(len) * 8);
                gossip.step(now, Input::Facts(Facts { connections, software, ..Facts::default() }), &mut out);
            }
            4 => {
                let octets = choices.run();
                gossip.step(now, Input::Datagram(octets), &mut out);
                assert!(out.iter().all(|output| matches!(output, Output::Dropped(_))), "{octets:?}: {out:?}");
            }
            5 => {
                let octets = signed(&mut choices, sequence, |choices, kind| {
                    *kind = choices.next();
                    choices.run().to_vec()
                });
                gossip.step(now, Input::Datagram(&octets), &mut out);
            }
            _ => {
                let octets = signed(&mut choices, sequence, |choices, _| probe(choices));
                gossip.step(now, Input::Datagram(&octets), &mut out);
            }
        }
        check(&gossip, &members, &out);
    }
}

fn check(gossip: &Gossip, members: &BTreeSet<u64>, out: &[Output]) {
    for output in out {
        if let Output::Send { octets, .. } = output {
            assert!(octets.starts_with(b"BRKG") && octets.len() <= DATAGRAM_MAX_BYTES);
        }
    }
    assert!(gossip.up().all(|(node, _)| node != ME && members.contains(&node)));
    assert!(gossip.views().into_keys().all(|node| node == ME || members.contains(&node)));
    assert!(gossip.next_timeout().is_some());
}

fn address(node: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node as u8], 25_672))
}

/// A datagram of the format that docs/internals/membership.md draws.
fn signed(
    choices: &mut Choices<'_>,
    sequence: u64,
    carried: impl FnOnce(&mut Choices<'_>, &mut u8) -> Vec<u8>,
) -> Vec<u8> {
    let [node, incarnation, back] = choices.take::<3>().map(u64::from);
    let mut kind = 1;
    let carried = carried(choices, &mut kind);
    let mut out = [&b"BRKG"[..], &[1, kind], &CLUSTER].concat();
    for number in [node % (NODES + 1), incarnation % 4, sequence.saturating_sub(back / 32)] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&carried);
    let proof = sign(b"broker gossip 1", &[&out]);
    out.extend_from_slice(&proof);
    out
}

/// What foca would say, with any numbers.
fn probe(choices: &mut Choices<'_>) -> Vec<u8> {
    let [kind, incarnation, number, count] = choices.take();
    let mut out = vec![1 + kind % 12, 0, incarnation, 0, number];
    out.extend_from_slice(&id(choices));
    // It listens to what is meant for it.
    let to = choices.next();
    out.extend_from_slice(&if to.is_multiple_of(4) { id(choices) } else { id_of(ME, u64::from(to % 2) * 5, 0, ME) });
    if (3..=6).contains(&(1 + kind % 12)) {
        out.extend_from_slice(&id(choices));
    }
    if count % 4 > 0 {
        out.extend_from_slice(&[0, count / 16]);
        for _ in 0..count / 16 {
            let [state, incarnation] = choices.take();
            out.extend_from_slice(&[state % 4, 0, incarnation]);
            out.extend_from_slice(&id(choices));
        }
    }
    out
}

fn id(choices: &mut Choices<'_>) -> Vec<u8> {
    let [node, incarnation, renewal, place] = choices.take::<4>().map(u64::from);
    id_of(node % (NODES + 1), incarnation % 8, renewal as u32, place % 8)
}

fn id_of(node: u64, incarnation: u64, renewal: u32, place: u64) -> Vec<u8> {
    let (node, incarnation, renewal) = (node.to_be_bytes(), incarnation.to_be_bytes(), renewal.to_be_bytes());
    [&node[..], &incarnation, &renewal, &[4, 10, 0, 0, place as u8], &25_672_u16.to_be_bytes()].concat()
}
