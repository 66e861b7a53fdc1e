//! Both ends against each other, and against whoever is not one.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::ops::RangeInclusive;
use std::time::Instant;

use proptest::prelude::*;
use zeroize::ZeroizeOnDrop;

use super::codec::{MESSAGE_MAX_BYTES, put_message};
use super::*;

const CLUSTER: [u8; 16] = [9; 16];

fn secret(octet: u8) -> Secret {
    Secret::from_content(&[octet; 40]).unwrap()
}

fn identity(node: u64) -> Identity {
    Identity {
        cluster: Some(CLUSTER),
        node,
        incarnation: node * 10,
        name: format!("rabbit@host-{node}"),
        software: "brokerd 0.1.0".into(),
    }
}

/// The other node and what came behind, or why not and whether that was said here.
type Outcome = Result<(Peer, Vec<u8>), (Refusal, bool)>;

/// One end, and what came of it.
struct End {
    handshake: Handshake,
    verdict: Result<u64, Refusal>,
    /// Written and not read by the other yet.
    wire: Vec<u8>,
    /// Everything it ever wrote.
    said: Vec<u8>,
    outcome: Option<Outcome>,
    judged: u32,
}

impl End {
    fn new(role: Role, secret: Secret, ours: Identity, versions: RangeInclusive<u16>, nonce: u8) -> End {
        let handshake = Handshake::new(role, Instant::now(), secret, ours, versions, [nonce; 32]);
        let verdict = Ok(u64::from(nonce) * 100);
        let mut end = End { handshake, verdict, wire: Vec::new(), said: Vec::new(), outcome: None, judged: 0 };
        let mut out = Vec::new();
        if role == Role::Connector {
            end.handshake.begin(&mut out);
        }
        end.carry_out(out);
        end
    }

    fn connector() -> End {
        End::new(Role::Connector, secret(1), identity(1), VERSIONS, 1)
    }

    fn acceptor() -> End {
        End::new(Role::Acceptor, secret(1), identity(2), VERSIONS, 2)
    }

    fn hear(&mut self, octets: &[u8]) {
        let mut out = Vec::new();
        self.handshake.receive(octets, &mut out);
        self.carry_out(out);
    }

    fn carry_out(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send(octets) => {
                    self.wire.extend_from_slice(&octets);
                    self.said.extend_from_slice(&octets);
                }
                Output::Judge(_) => {
                    self.judged += 1;
                    let mut more = Vec::new();
                    self.handshake.judge(self.verdict.clone(), &mut more);
                    self.carry_out(more);
                }
                Output::Done { peer, rest } => {
                    assert!(self.outcome.is_none());
                    self.outcome = Some(Ok((peer, rest)));
                }
                Output::Refused { why, by_us } => {
                    assert!(self.outcome.is_none());
                    self.outcome = Some(Err((why, by_us)));
                }
            }
        }
    }

    fn refusal(&self) -> (Refusal, bool) {
        match &self.outcome {
            Some(Err(refusal)) => refusal.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn peer(&self) -> &Peer {
        match &self.outcome {
            Some(Ok((peer, _))) => peer,
            other => panic!("{other:?}"),
        }
    }
}

/// Lets both talk in pieces of so many octets until nobody says anything.
fn talk(connector: &mut End, acceptor: &mut End, step: usize) {
    loop {
        let (to_acceptor, to_connector) = (std::mem::take(&mut connector.wire), std::mem::take(&mut acceptor.wire));
        if to_acceptor.is_empty() && to_connector.is_empty() {
            return;
        }
        to_acceptor.chunks(step).for_each(|piece| acceptor.hear(piece));
        to_connector.chunks(step).for_each(|piece| connector.hear(piece));
    }
}

#[test]
fn both_know_each_other_however_the_octets_are_cut() {
    for step in 1..200 {
        let (mut connector, mut acceptor) = (End::connector(), End::acceptor());
        talk(&mut connector, &mut acceptor, step);
        let (theirs, ours) = (connector.peer(), acceptor.peer());
        assert_eq!((&theirs.identity, &ours.identity), (&identity(2), &identity(1)));
        assert_eq!((theirs.version, ours.version), (1, 1));
        assert_eq!((theirs.knows, ours.knows), (200, 100), "each says what it knows of the other");
        assert!(theirs.our_key == ours.its_key && theirs.its_key == ours.our_key && theirs.our_key != theirs.its_key);
        assert!(connector.said.len().max(acceptor.said.len()) < HANDSHAKE_MAX_BYTES);
        assert_eq!((connector.judged, acceptor.judged), (1, 1));
        assert_eq!(connector.handshake.next_timeout(), None);
    }
}

#[test]
fn what_comes_behind_the_handshake_is_handed_on() {
    let (mut connector, mut acceptor) = (End::connector(), End::acceptor());
    acceptor.hear(&std::mem::take(&mut connector.wire));
    connector.hear(&std::mem::take(&mut acceptor.wire));
    acceptor.hear(&std::mem::take(&mut connector.wire));
    connector.hear(&std::mem::take(&mut acceptor.wire));
    // The connector is done and goes on at once, in the same write; more than a handshake may have.
    let link = vec![7; 2 * HANDSHAKE_MAX_BYTES];
    acceptor.hear(&[std::mem::take(&mut connector.wire), link.clone()].concat());
    assert!(matches!(&acceptor.outcome, Some(Ok((_, rest))) if *rest == link));
    assert!(matches!(&connector.outcome, Some(Ok((_, rest))) if rest.is_empty()));
}

#[test]
fn keys_are_new_each_time() {
    let mut keys = Vec::new();
    for nonce in 1..5 {
        let mut connector = End::new(Role::Connector, secret(1), identity(1), VERSIONS, nonce);
        let mut acceptor = End::new(Role::Acceptor, secret(1), identity(2), VERSIONS, 2);
        talk(&mut connector, &mut acceptor, 1000);
        keys.push(connector.peer().our_key.octets().to_vec());
        keys.push(connector.peer().its_key.octets().to_vec());
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 8);
}

#[test]
fn who_does_not_hold_the_secret_learns_nothing_and_is_told_nothing() {
    let mut connector = End::new(Role::Connector, secret(1), identity(1), VERSIONS, 1);
    let mut acceptor = End::new(Role::Acceptor, secret(2), identity(2), VERSIONS, 2);
    talk(&mut connector, &mut acceptor, 1000);
    assert_eq!(connector.refusal(), (Refusal::NotAuthenticated, true));
    assert_eq!(acceptor.refusal(), (Refusal::NotAuthenticated, false));
    for said in [&connector.said, &acceptor.said] {
        assert!(!said.windows(6).any(|octets| octets == b"rabbit"), "it said who it is");
    }
    assert_eq!((connector.judged, acceptor.judged), (0, 0));
    // A connector that cannot check, and goes on.
    let mut acceptor = End::acceptor();
    let mut liar = End::connector();
    acceptor.hear(&std::mem::take(&mut liar.wire));
    acceptor.hear(&put_message(codec::IDENTITY, &[&codec::put_identity(&identity(1)), &[0; 32]]));
    assert_eq!(acceptor.refusal(), (Refusal::NotAuthenticated, true));
    assert!(!acceptor.said.windows(6).any(|octets| octets == b"rabbit"));
}

#[test]
fn both_sides_hear_why_they_do_not_talk() {
    let one = |refused: Refusal, change: &dyn Fn(&mut End, &mut End), by_connector: bool| {
        let (mut connector, mut acceptor) = (End::connector(), End::acceptor());
        change(&mut connector, &mut acceptor);
        talk(&mut connector, &mut acceptor, 1000);
        let expected = [(refused.clone(), by_connector), (refused, !by_connector)];
        assert_eq!([connector.refusal(), acceptor.refusal()], expected);
    };
    for why in [Refusal::NotAMember, Refusal::Taken, Refusal::Outdated, Refusal::NotNow] {
        one(why.clone(), &|_, acceptor| acceptor.verdict = Err(why.clone()), false);
        one(why.clone(), &|connector, _| connector.verdict = Err(why.clone()), true);
    }
    let unknown = Refusal::Unknown(NonZeroU8::new(99).unwrap());
    one(unknown.clone(), &|_, acceptor| acceptor.verdict = Err(unknown.clone()), false);
    let with = |ours: Identity| {
        move |connector: &mut End, _: &mut End| {
            *connector = End::new(Role::Connector, secret(1), ours.clone(), VERSIONS, 1);
        }
    };
    one(Refusal::AnotherCluster, &with(Identity { cluster: Some([8; 16]), ..identity(1) }), false);
    one(Refusal::Itself, &with(identity(2)), false);
}

#[test]
fn only_the_number_0_accepts() {
    let versions = Refusal::Versions { theirs: 1..=1, ours: 2..=2 };
    for number in 0..=u8::MAX {
        let octets = [number, 0, 0, 0, 0, 0, 0, 0, if number == 0 { 9 } else { 0 }];
        let verdict = codec::take_verdict(&octets, &versions).unwrap();
        assert_eq!(verdict.as_ref().ok(), (number == 0).then_some(&9), "{verdict:?}");
        assert_eq!(codec::put_verdict(&verdict), octets, "{verdict:?}");
        assert!(codec::take_verdict(&octets[..8], &versions).is_none());
    }
}

#[test]
fn a_node_without_a_cluster_may_ask() {
    let ours = Identity { cluster: None, node: 0, ..identity(1) };
    let mut connector = End::new(Role::Connector, secret(1), ours.clone(), VERSIONS, 1);
    let mut acceptor = End::acceptor();
    talk(&mut connector, &mut acceptor, 1000);
    assert_eq!((&acceptor.peer().identity, connector.peer().identity.cluster), (&ours, Some(CLUSTER)));
}

#[test]
fn the_highest_common_version_is_spoken_or_none() {
    let spoken = |ours: RangeInclusive<u16>, theirs: RangeInclusive<u16>| {
        let mut connector = End::new(Role::Connector, secret(1), identity(1), ours, 1);
        let mut acceptor = End::new(Role::Acceptor, secret(1), identity(2), theirs, 2);
        talk(&mut connector, &mut acceptor, 1000);
        (connector, acceptor)
    };
    for (ours, theirs, version) in [(1..=5, 3..=9, 5), (3..=9, 1..=5, 5), (2..=2, 1..=3, 2)] {
        let (connector, acceptor) = spoken(ours, theirs);
        assert_eq!((connector.peer().version, acceptor.peer().version), (version, version));
    }
    let (connector, acceptor) = spoken(1..=2, 3..=4);
    let versions = |theirs, ours| Refusal::Versions { theirs, ours };
    assert_eq!(connector.refusal(), (versions(3..=4, 1..=2), false));
    assert_eq!(acceptor.refusal(), (versions(1..=2, 3..=4), true));
    let text = acceptor.refusal().0.to_string();
    let expected = "the other node speaks versions 1 to 2 of the cluster's protocol, this one 3 to 4: upgrade the older of the two";
    assert_eq!(text, expected);
}

#[test]
fn what_was_captured_is_of_no_use() {
    let (mut connector, mut acceptor) = (End::connector(), End::acceptor());
    talk(&mut connector, &mut acceptor, 1000);
    // All the connector said, said again to an acceptor with another nonce.
    let mut later = End::new(Role::Acceptor, secret(1), identity(2), VERSIONS, 3);
    later.hear(&connector.said);
    assert_eq!(later.refusal(), (Refusal::NotAuthenticated, true));
    // All the acceptor said, to another connector.
    let mut later = End::new(Role::Connector, secret(1), identity(1), VERSIONS, 3);
    later.hear(&acceptor.said);
    assert_eq!(later.refusal(), (Refusal::NotAuthenticated, true));
    assert_eq!(later.judged, 0);
}

#[test]
fn a_mirror_is_no_node() {
    // What the connector says comes back to it, as it is and under each kind.
    for kind in codec::HELLO..=codec::STRANGER {
        let mut connector = End::connector();
        let mut echo = std::mem::take(&mut connector.wire);
        echo[2] = kind;
        connector.hear(&echo);
        let (why, by_us) = connector.refusal();
        let stranger = kind == codec::STRANGER;
        assert!(matches!(why, Refusal::NoNode | Refusal::NotAuthenticated) && by_us || stranger, "{kind}: {why:?}");
        assert_eq!(connector.judged, 0);
    }
    // Two connections to the same node: what it proves on one is shown to it on the other.
    let mut attacked = End::acceptor();
    let mut honest = End::new(Role::Acceptor, secret(1), identity(2), VERSIONS, 4);
    let hello = End::connector().wire;
    attacked.hear(&hello);
    honest.hear(&hello);
    let mut turned = std::mem::take(&mut honest.wire);
    turned[2] = codec::IDENTITY;
    attacked.hear(&turned);
    assert_eq!(attacked.refusal(), (Refusal::NotAuthenticated, true));
}

/// Everything that is said is signed: one octet changed on its way, wherever it is, and they do not come together as if nothing had happened.
#[test]
fn no_octet_can_be_changed_on_its_way() {
    let (mut connector, mut acceptor) = (End::connector(), End::acceptor());
    talk(&mut connector, &mut acceptor, 1000);
    let totals = [connector.said.len(), acceptor.said.len()];
    for (side, total) in totals.into_iter().enumerate() {
        for place in 0..total {
            let mut ends = [End::connector(), End::acceptor()];
            let mut passed = [0, 0];
            loop {
                let mut wires = [std::mem::take(&mut ends[0].wire), std::mem::take(&mut ends[1].wire)];
                if wires.iter().all(Vec::is_empty) {
                    break;
                }
                for from in 0..2 {
                    if from == side && (passed[from]..passed[from] + wires[from].len()).contains(&place) {
                        wires[from][place - passed[from]] ^= 1;
                    }
                    passed[from] += wires[from].len();
                    ends[1 - from].hear(&wires[from]);
                }
            }
            let heard = &ends[1 - side];
            assert!(!matches!(heard.outcome, Some(Ok(_))), "octet {place} of side {side} does not matter");
        }
    }
}

#[test]
fn who_says_too_little_or_too_much_is_not_waited_for() {
    let mut acceptor = End::acceptor();
    let until = acceptor.handshake.next_timeout().unwrap();
    let mut out = Vec::new();
    acceptor.handshake.timeout(until - HANDSHAKE_TIME / 2, &mut out);
    assert_eq!(out, []);
    // A little now and then does not help.
    acceptor.hear(&End::connector().wire[..5]);
    assert_eq!(acceptor.handshake.next_timeout(), Some(until));
    acceptor.handshake.timeout(until, &mut out);
    assert_eq!(out, [Output::Refused { why: Refusal::TookTooLong, by_us: true }]);
    // An announced message that is too long; one that never ends would be longer than any.
    let mut acceptor = End::acceptor();
    acceptor.hear(&[&((MESSAGE_MAX_BYTES + 1) as u16).to_be_bytes()[..], &[codec::HELLO]].concat());
    assert_eq!(acceptor.refusal(), (Refusal::NoNode, true));
    for other in [&b"AMQP\0\0\x09\x01"[..], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0\x01\0"] {
        let mut acceptor = End::acceptor();
        acceptor.hear(other);
        assert_eq!(acceptor.refusal(), (Refusal::NoNode, true), "{other:?}");
    }
    // Before it is judged nothing more may be said.
    let (mut connector, mut acceptor) = (End::connector(), End::acceptor());
    acceptor.hear(&std::mem::take(&mut connector.wire));
    acceptor.hear(&vec![0; HANDSHAKE_MAX_BYTES + 1]);
    assert!(matches!(acceptor.refusal(), (Refusal::NoNode, true)));
}

#[test]
fn a_secret_is_long_enough_and_never_shown() {
    assert_eq!(Secret::from_content(&[b'x'; 31]).unwrap_err(), TooShort(31));
    assert_eq!(Secret::from_content(b"0123456789012345678901234567890\r\n").unwrap_err(), TooShort(31));
    let one = Secret::from_content(&[b'x'; 32]).unwrap();
    let with_line_end = Secret::from_content(&[&[b'x'; 32][..], b"\n"].concat()).unwrap();
    assert_eq!(one.sign(b"", &[]), with_line_end.sign(b"", &[]));
    assert_eq!(format!("{one:?}"), "Secret");
    let key = Key(Zeroizing::new([7; 32]));
    assert_eq!(format!("{key:?}"), "Key");
    fn is_wiped(_: &impl ZeroizeOnDrop) {}
    is_wiped(&key.0);
    // What is signed under one label proves nothing under another, nor does a label that runs over into what is said.
    assert!(one.proves(b"ab", &[b"c"], &one.sign(b"ab", &[b"c"])));
    assert!(!one.proves(b"a", &[b"bc"], &one.sign(b"ab", &[b"c"])));
    assert!(!one.proves(b"ab", &[b"c"], &one.sign(b"ab", &[b"c"])[..31]));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_octets_are_refused_or_waited_for(octets in prop::collection::vec(any::<u8>(), 0..1500), accepts in any::<bool>(), step in 1_usize..300) {
        let mut end = if accepts { End::acceptor() } else { End::connector() };
        for piece in octets.chunks(step) {
            end.hear(piece);
        }
        prop_assert!(!matches!(end.outcome, Some(Ok(_))));
        prop_assert_eq!(end.judged, 0);
    }

    #[test]
    fn identities_read_back(
        cluster in any::<Option<[u8; 16]>>(), node in any::<u64>(), incarnation in any::<u64>(), name in "[a-zä-ü@.-]{0,140}", software in "[ -~]{0,80}",
    ) {
        let said = Identity { cluster, node, incarnation, name, software };
        let octets = codec::put_identity(&said);
        let (heard, rest) = codec::take_identity(&octets).unwrap();
        prop_assert!(rest.is_empty() && octets.len() + 33 <= MESSAGE_MAX_BYTES);
        prop_assert!(said.name.starts_with(&heard.name) && heard.name.len() <= NAME_MAX_BYTES);
        prop_assert!(said.software.starts_with(&heard.software));
        prop_assert_eq!((heard.cluster, heard.node, heard.incarnation), (cluster, node, incarnation));
        for cut in 0..octets.len() {
            prop_assert!(codec::take_identity(&octets[..cut]).is_none());
        }
    }
}

#[test]
fn a_name_that_would_upset_a_terminal_is_not_taken() {
    let said = Identity { name: "rabbit@\u{1b}[2J".into(), ..identity(1) };
    assert!(codec::take_identity(&codec::put_identity(&said)).is_none());
}

/// Computed apart from this, with Python's `hmac`: nodes of later versions have to sign the same.
#[test]
fn what_is_signed_is_signed_as_ever() {
    let secret = Secret::from_content(b"a secret of thirty-two octets or more\n").unwrap();
    let signed: String = secret.sign(b"label", &[b"one", b"two"]).iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(signed, "ae0ffbabde6204ef854aad4f66a20127a8a4540ea365ac34370121b844409bd3");
}
