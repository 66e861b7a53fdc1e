//! Octets on a fresh stream between nodes: of a stranger, of one who holds the secret and says anything, or of a node whose words somebody changes
//! on the way.

use std::time::Instant;

use broker_meta::peer::{
    HANDSHAKE_MAX_BYTES, HANDSHAKE_TIME, Handshake, Identity, NAME_MAX_BYTES, Output, Refusal, SOFTWARE_MAX_BYTES,
};

use super::{CLUSTER, Choices, PROOF_BYTES, secret, sign};

const NONCE: [u8; 32] = [3; 32];
const HELLO: u8 = 1;
const HELLO_PROOF: u8 = 2;
const IDENTITY: u8 = 3;
const ANSWER: u8 = 4;
const VERDICT: u8 = 5;
/// Length and kind.
const HEAD_BYTES: usize = 3;

/// The first octet says who speaks, to which end, and in what pieces the octets come.
pub fn live(octets: &[u8]) {
    let mut choices = Choices(octets);
    let choice = choices.next();
    match choice % 4 {
        0 => stranger(choice, choices),
        1 => holder_calls(choices),
        2 => holder_is_called(choices),
        _ => changed_on_the_way(choices),
    }
}

fn identity(node: u64) -> Identity {
    let (name, software) = (format!("rabbit@{node}"), "brokerd".into());
    Identity { cluster: Some(CLUSTER), node, incarnation: 1, name, software }
}

/// One end, and what came of it.
struct End {
    handshake: Handshake,
    said: Vec<Vec<u8>>,
    judges: usize,
    done: Option<Vec<u8>>,
    refused: Option<Refusal>,
}

impl End {
    fn new(node: u64, connects: bool) -> End {
        let (now, mut out) = (Instant::now(), Vec::new());
        let handshake = if connects {
            Handshake::connect(now, secret(), identity(node), NONCE, &mut out)
        } else {
            Handshake::accept(now, secret(), identity(node), NONCE)
        };
        let mut end = End { handshake, said: Vec::new(), judges: 0, done: None, refused: None };
        end.note(out);
        end
    }

    fn hear(&mut self, octets: &[u8]) {
        let mut out = Vec::new();
        self.handshake.receive(octets, &mut out);
        self.note(out);
    }

    fn judge(&mut self, verdict: Result<u64, Refusal>) {
        let mut out = Vec::new();
        self.handshake.judge(verdict, &mut out);
        self.note(out);
    }

    fn is_over(&self) -> bool {
        self.done.is_some() || self.refused.is_some()
    }

    fn note(&mut self, out: Vec<Output>) {
        for output in out {
            assert!(!self.is_over(), "something comes behind the end");
            match output {
                Output::Send(octets) => self.said.push(octets),
                Output::Judge(peer) => {
                    let Identity { name, software, .. } = &peer.identity;
                    assert!(name.len() <= NAME_MAX_BYTES && software.len() <= SOFTWARE_MAX_BYTES);
                    assert!(!name.chars().chain(software.chars()).any(char::is_control));
                    self.judges += 1;
                }
                Output::Done { rest, .. } => {
                    assert_eq!(self.judges, 1);
                    self.done = Some(rest);
                }
                Output::Refused { why, .. } => self.refused = Some(why),
            }
        }
        assert!(self.judges <= 1 && self.said.iter().map(Vec::len).sum::<usize>() <= HANDSHAKE_MAX_BYTES);
    }

    /// It ends at its time, if it has not before.
    fn finish(mut self) {
        let due = self.handshake.next_timeout();
        assert_eq!(due.is_none(), self.is_over());
        let mut out = Vec::new();
        self.handshake.timeout(Instant::now() + 2 * HANDSHAKE_TIME, &mut out);
        self.note(out);
        assert!(self.is_over() && self.handshake.next_timeout().is_none());
        self.hear(&[0; 9]);
    }
}

fn stranger(choice: u8, choices: Choices<'_>) {
    let mut end = End::new(1, choice & 4 == 0);
    for piece in choices.0.chunks(1 + usize::from(choice >> 3) * 9) {
        end.hear(piece);
    }
    assert!(end.judges == 0 && end.done.is_none());
    end.finish();
}

fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let fields = parts.concat();
    [&(fields.len() as u16).to_be_bytes()[..], &[kind], &fields].concat()
}

fn hello(choices: &mut Choices<'_>) -> Vec<u8> {
    // Mostly the version that there is.
    let [lowest, highest] = choices.take::<2>().map(|octet| 1 + u16::from(octet % 16 == 1));
    [&b"BRKPEER\0"[..], &lowest.to_be_bytes(), &highest.to_be_bytes(), &[4; 32]].concat()
}

/// Any octets, or fields that make sense with any content.
fn said_identity(choices: &mut Choices<'_>) -> Vec<u8> {
    if choices.next().is_multiple_of(4) {
        let more = choices.next();
        return [choices.run(), choices.slice(more.into())].concat();
    }
    let [has_cluster, cluster, node, incarnation] = choices.take();
    let (name, software) = (choices.run(), choices.run());
    let mut out = vec![has_cluster % 2];
    out.extend_from_slice(&[if cluster % 4 == 0 { 9 } else { cluster }; 16]);
    out.extend_from_slice(&u64::from(node).to_be_bytes());
    out.extend_from_slice(&u64::from(incarnation).to_be_bytes());
    for text in [name, software] {
        out.push(text.len() as u8);
        out.extend_from_slice(text);
    }
    out
}

fn verdict_here(choices: &mut Choices<'_>) -> Result<u64, Refusal> {
    if choices.next().is_multiple_of(4) { Err(Refusal::NotAMember) } else { Ok(choices.next().into()) }
}

/// A verdict, now and then cut short or too long, and whether it accepts.
fn said_verdict(choices: &mut Choices<'_>) -> (Vec<u8>, bool) {
    let number = choices.next() % 16;
    let mut verdict = [&[number][..], &[choices.next(); 8]].concat();
    match choices.next() % 16 {
        0 => drop(verdict.pop()),
        1 => verdict.push(0),
        _ => return (verdict, number == 0),
    }
    (verdict, false)
}

/// The other end has spoken last: its fields without the proof, which is right.
fn fields<'a>(octets: &'a [u8], label: &[u8], before: &[&[u8]]) -> &'a [u8] {
    let fields = &octets[HEAD_BYTES..];
    let (said, proof) = fields.split_at(fields.len() - PROOF_BYTES);
    assert_eq!(proof, sign(label, &[before, &[said]].concat()));
    said
}

fn holder_calls(mut choices: Choices<'_>) {
    let mut end = End::new(1, false);
    let ours = hello(&mut choices);
    end.hear(&message(HELLO, &[&ours]));
    let Some(answer) = end.said.last().cloned() else { return end.finish() };
    assert_eq!(answer[2], HELLO_PROOF);
    let theirs = fields(&answer, b"broker peer 1: acceptor's hello", &[&ours]);
    let identity = said_identity(&mut choices);
    let proof = sign(b"broker peer 1: connector's identity", &[&ours, theirs, &identity]);
    end.hear(&message(IDENTITY, &[&identity, &proof]));
    assert_ne!(end.refused, Some(Refusal::NotAuthenticated));
    let accepted = verdict_here(&mut choices);
    if end.judges == 1 {
        end.judge(accepted.clone());
    }
    if end.judges == 1 && accepted.is_ok() {
        let answer = end.said.last().cloned().unwrap();
        assert_eq!(answer[2], ANSWER);
        let before = [&ours[..], theirs, &identity];
        let answer = fields(&answer, b"broker peer 1: acceptor's answer", &before);
        let (verdict, accepts) = said_verdict(&mut choices);
        let proof = sign(b"broker peer 1: connector's verdict", &[&ours, theirs, &identity, answer, &verdict]);
        end.hear(&[&message(VERDICT, &[&verdict, &proof])[..], choices.0].concat());
        assert_eq!(end.done.as_deref(), accepts.then_some(choices.0));
    }
    assert!(end.done.is_none() || accepted.is_ok());
    end.finish();
}

fn holder_is_called(mut choices: Choices<'_>) {
    let mut end = End::new(1, true);
    let theirs = end.said[0][HEAD_BYTES..].to_vec();
    let ours = hello(&mut choices);
    let proof = sign(b"broker peer 1: acceptor's hello", &[&theirs, &ours]);
    end.hear(&message(HELLO_PROOF, &[&ours, &proof]));
    let Some(said) = end.said.get(1).cloned() else { return end.finish() };
    assert_eq!(said[2], IDENTITY);
    let identity = fields(&said, b"broker peer 1: connector's identity", &[&theirs, &ours]);
    let (verdict, accepts) = said_verdict(&mut choices);
    let answer = [&said_identity(&mut choices)[..], &verdict].concat();
    let proof = sign(b"broker peer 1: acceptor's answer", &[&theirs, &ours, identity, &answer]);
    let accepted = verdict_here(&mut choices);
    end.hear(&[&message(ANSWER, &[&answer, &proof])[..], choices.0].concat());
    // Number 1 is this refusal, told by the other.
    assert!(end.refused != Some(Refusal::NotAuthenticated) || verdict[0] == 1);
    assert!(end.judges == 0 || accepts);
    if end.judges == 1 {
        end.judge(accepted.clone());
        assert_eq!(end.done.as_deref(), accepted.is_ok().then_some(choices.0));
    }
    end.finish();
}

/// What one end says reaches the other as the choices have it.
fn changed_on_the_way(mut choices: Choices<'_>) {
    let (mut ends, mut reached) = ([End::new(1, true), End::new(2, false)], [Vec::new(), Vec::new()]);
    let mut carried = [0, 0];
    let mut may_be_told_again: Vec<Vec<u8>> = Vec::new();
    while let Some(from) = (0..2).find(|from| carried[*from] < ends[*from].said.len()) {
        let mut octets = ends[from].said[carried[from]].clone();
        carried[from] += 1;
        may_be_told_again.push(octets.clone());
        let [what, place, value] = choices.take();
        let place = usize::from(place) % octets.len();
        let mut to = 1 - from;
        match what % 16 {
            1 => octets[place] ^= value,
            2 => octets.truncate(place),
            3 => octets.insert(place, value),
            4 => octets.extend_from_within(..),
            5 => to = from,
            6 => octets = may_be_told_again[place % may_be_told_again.len()].clone(),
            7 => octets.extend_from_slice(choices.run()),
            _ => {}
        }
        reached[to].extend_from_slice(&octets);
        let judged = ends[to].judges;
        ends[to].hear(&octets);
        let heard_as_said = |messages: usize| {
            let said = ends[1 - to].said.get(..messages).map(|said| said.concat());
            said.is_some_and(|said| reached[to].starts_with(&said))
        };
        assert!(ends[to].judges == judged || heard_as_said(2), "it believes what the other has not said");
        // The connector is done when it judges.
        assert!(to == 0 || ends[to].done.is_none() || heard_as_said(3), "it believes what the other has not said");
        if ends[to].judges > judged {
            ends[to].judge(verdict_here(&mut choices));
        }
    }
    ends.into_iter().for_each(End::finish);
}
