//! One end of a handshake, step by step.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::codec::{
    self, ANSWER, HELLO, HELLO_PROOF, IDENTITY, NONCE_BYTES, PROOF_BYTES, STRANGER, VERDICT, put_message, take_message,
};
use super::{Identity, Peer, Refusal, Secret, VERSIONS};

/// All of a handshake takes no longer.
pub const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// What one end says in a handshake is no longer than this, in octets.
pub const HANDSHAKE_MAX_BYTES: usize = 4096;

const ACCEPTOR_HELLO: &[u8] = b"broker peer 1: acceptor's hello";
const CONNECTOR_IDENTITY: &[u8] = b"broker peer 1: connector's identity";
const ACCEPTOR_ANSWER: &[u8] = b"broker peer 1: acceptor's answer";
const CONNECTOR_VERDICT: &[u8] = b"broker peer 1: connector's verdict";
const CONNECTOR_KEY: &[u8] = b"broker peer 1: connector's key";
const ACCEPTOR_KEY: &[u8] = b"broker peer 1: acceptor's key";

/// Which end of the stream a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It opened the stream.
    Connector,
    /// It was called.
    Acceptor,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Write these octets.
    Send(Vec<u8>),
    /// The peer has proved who it is. Decide whether this node talks to it, and call [`Handshake::judge`].
    Judge(Peer),
    /// Both want to talk to each other. What was read behind the handshake is handed on: the link begins there.
    Done {
        /// The other node.
        peer: Peer,
        /// Octets behind the handshake.
        rest: Vec<u8>,
    },
    /// They do not: close the stream once everything is written.
    Refused {
        /// Why.
        why: Refusal,
        /// It is this node that refuses.
        by_us: bool,
    },
}

/// See the module's page.
#[derive(Debug)]
pub struct Handshake {
    role: Role,
    secret: Secret,
    versions: RangeInclusive<u16>,
    ours: Identity,
    deadline: Instant,
    step: Step,
    pending: Vec<u8>,
    received: usize,
    said: Said,
    /// The last start of this node that the other had heard of.
    knows: u64,
    peer: Option<Peer>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The acceptor hears a hello.
    Hello,
    /// The connector hears a hello and a proof.
    HelloProof,
    /// The acceptor hears who it is.
    Identity,
    /// The connector hears who it is, and whether it is refused.
    Answer,
    /// The acceptor hears whether it is refused.
    Verdict,
    /// The caller decides.
    Judgement,
    /// Nothing.
    Over,
}

/// What both have said, as it is signed.
#[derive(Debug, Default)]
struct Said {
    connector_hello: Vec<u8>,
    acceptor_hello: Vec<u8>,
    connector_identity: Vec<u8>,
    /// The acceptor's identity and its verdict.
    answer: Vec<u8>,
}

impl Said {
    fn parts(&self) -> [&[u8]; 4] {
        [&self.connector_hello, &self.acceptor_hello, &self.connector_identity, &self.answer]
    }
}

impl Handshake {
    /// This node has opened a stream. `nonce` must be random, and different each time.
    pub fn connect(
        now: Instant,
        secret: Secret,
        ours: Identity,
        nonce: [u8; NONCE_BYTES],
        out: &mut Vec<Output>,
    ) -> Handshake {
        let handshake = Handshake::new(Role::Connector, now, secret, ours, VERSIONS, nonce);
        handshake.begin(out);
        handshake
    }

    /// A stream was opened to this node. `nonce` must be random, and different each time.
    pub fn accept(now: Instant, secret: Secret, ours: Identity, nonce: [u8; NONCE_BYTES]) -> Handshake {
        Handshake::new(Role::Acceptor, now, secret, ours, VERSIONS, nonce)
    }

    pub(super) fn new(
        role: Role,
        now: Instant,
        secret: Secret,
        ours: Identity,
        versions: RangeInclusive<u16>,
        nonce: [u8; NONCE_BYTES],
    ) -> Handshake {
        let hello = codec::put_hello(&versions, &nonce);
        let (mut said, step) = (Said::default(), if role == Role::Connector { Step::HelloProof } else { Step::Hello });
        match role {
            Role::Connector => said.connector_hello = hello,
            Role::Acceptor => said.acceptor_hello = hello,
        }
        let deadline = now + HANDSHAKE_TIME;
        let (pending, peer) = (Vec::new(), None);
        Handshake { role, secret, versions, ours, deadline, step, pending, received: 0, said, knows: 0, peer }
    }

    pub(super) fn begin(&self, out: &mut Vec<Output>) {
        out.push(Output::Send(put_message(HELLO, &[&self.said.connector_hello])));
    }

    /// When [`Handshake::timeout`] is to be called; never any more once it is over.
    pub fn next_timeout(&self) -> Option<Instant> {
        (self.step != Step::Over).then_some(self.deadline)
    }

    /// Time has passed.
    pub fn timeout(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.step != Step::Over && now >= self.deadline {
            self.refuse(Refusal::TookTooLong, out);
        }
    }

    /// Takes what was read from the stream.
    pub fn receive(&mut self, octets: &[u8], out: &mut Vec<Output>) {
        if self.step == Step::Over {
            return;
        }
        self.pending.extend_from_slice(octets);
        while !matches!(self.step, Step::Over | Step::Judgement) {
            let message = match take_message(&self.pending) {
                Ok(Some((kind, fields, len))) => (kind, fields.to_vec(), len),
                Ok(None) => break,
                Err(why) => return self.refuse(why, out),
            };
            let (kind, fields, len) = message;
            self.pending.drain(..len);
            self.received += len;
            if let Err(why) = self.take(kind, &fields, out) {
                return self.refuse(why, out);
            }
        }
        // What comes behind the last message belongs to the link, and is not held here.
        if self.step != Step::Over && self.received + self.pending.len() > HANDSHAKE_MAX_BYTES {
            self.refuse(Refusal::NoNode, out);
        }
    }

    /// The answer to [`Output::Judge`]: the last start of the other that this node has heard of, 0 for none, or why they do not talk.
    pub fn judge(&mut self, verdict: Result<u64, Refusal>, out: &mut Vec<Output>) {
        if self.step != Step::Judgement {
            return;
        }
        self.pronounce(&verdict, out);
        match (verdict, self.role) {
            (Err(why), _) => self.end(why, true, out),
            (Ok(_), Role::Acceptor) => {
                self.step = Step::Verdict;
                self.receive(&[], out);
            }
            (Ok(_), Role::Connector) => self.done(out),
        }
    }

    fn take(&mut self, kind: u8, fields: &[u8], out: &mut Vec<Output>) -> Result<(), Refusal> {
        match (self.step, kind) {
            (_, STRANGER) if fields.is_empty() => {
                self.end(Refusal::NotAuthenticated, false, out);
                Ok(())
            }
            (Step::Hello, HELLO) => self.take_hello(fields, out),
            (Step::HelloProof, HELLO_PROOF) => self.take_hello_proof(fields, out),
            (Step::Identity, IDENTITY) => self.take_identity(fields, out),
            (Step::Answer, ANSWER) => self.take_answer(fields, out),
            (Step::Verdict, VERDICT) => self.take_verdict(fields, out),
            _ => Err(Refusal::NoNode),
        }
    }

    fn take_hello(&mut self, fields: &[u8], out: &mut Vec<Output>) -> Result<(), Refusal> {
        codec::take_hello(fields).ok_or(Refusal::NoNode)?;
        self.said.connector_hello = fields.to_vec();
        let proof = self.secret.sign(ACCEPTOR_HELLO, &self.said.parts());
        out.push(Output::Send(put_message(HELLO_PROOF, &[&self.said.acceptor_hello, &proof])));
        self.step = Step::Identity;
        Ok(())
    }

    fn take_hello_proof(&mut self, fields: &[u8], out: &mut Vec<Output>) -> Result<(), Refusal> {
        let (hello, proof) = split_proof(fields)?;
        codec::take_hello(hello).ok_or(Refusal::NoNode)?;
        self.said.acceptor_hello = hello.to_vec();
        self.check(ACCEPTOR_HELLO, proof)?;
        self.said.connector_identity = codec::put_identity(&self.ours);
        let proof = self.secret.sign(CONNECTOR_IDENTITY, &self.said.parts());
        out.push(Output::Send(put_message(IDENTITY, &[&self.said.connector_identity, &proof])));
        self.step = Step::Answer;
        Ok(())
    }

    fn take_identity(&mut self, fields: &[u8], out: &mut Vec<Output>) -> Result<(), Refusal> {
        let (identity, proof) = split_proof(fields)?;
        self.said.connector_identity = identity.to_vec();
        self.check(CONNECTOR_IDENTITY, proof)?;
        let (identity, []) = codec::take_identity(identity).ok_or(Refusal::NoNode)? else {
            return Err(Refusal::NoNode);
        };
        self.consider(identity, out);
        Ok(())
    }

    fn take_answer(&mut self, fields: &[u8], out: &mut Vec<Output>) -> Result<(), Refusal> {
        let (answer, proof) = split_proof(fields)?;
        self.said.answer = answer.to_vec();
        self.check(ACCEPTOR_ANSWER, proof)?;
        let (identity, verdict) = codec::take_identity(answer).ok_or(Refusal::NoNode)?;
        match self.heard(verdict)? {
            Ok(()) => self.consider(identity, out),
            Err(why) => self.end(why, false, out),
        }
        Ok(())
    }

    fn take_verdict(&mut self, fields: &[u8], out: &mut Vec<Output>) -> Result<(), Refusal> {
        let (verdict, proof) = split_proof(fields)?;
        let parts = self.said.parts();
        let said = [&parts[..], &[verdict]].concat();
        if !self.secret.proves(CONNECTOR_VERDICT, &said, proof) {
            return Err(Refusal::NotAuthenticated);
        }
        match self.heard(verdict)? {
            Ok(()) => self.done(out),
            Err(why) => self.end(why, false, out),
        }
        Ok(())
    }

    fn check(&self, label: &[u8], proof: &[u8]) -> Result<(), Refusal> {
        let proves = self.secret.proves(label, &self.said.parts(), proof);
        if proves { Ok(()) } else { Err(Refusal::NotAuthenticated) }
    }

    /// The other has proved who it is. What is wrong whatever the caller thinks of it is refused at once.
    fn consider(&mut self, identity: Identity, out: &mut Vec<Output>) {
        let peer = self.peer_of(identity).and_then(|peer| {
            let (ours, theirs) = (&self.ours, &peer.identity);
            if (theirs.node, theirs.incarnation, &theirs.name) == (ours.node, ours.incarnation, &ours.name) {
                return Err(Refusal::Itself);
            }
            match (ours.cluster, theirs.cluster) {
                (Some(ours), Some(theirs)) if ours != theirs => Err(Refusal::AnotherCluster),
                _ => Ok(peer),
            }
        });
        match peer {
            Ok(peer) => {
                self.peer = Some(peer.clone());
                self.step = Step::Judgement;
                out.push(Output::Judge(peer));
            }
            Err(why) => {
                self.pronounce(&Err(why.clone()), out);
                self.end(why, true, out);
            }
        }
    }

    fn peer_of(&self, identity: Identity) -> Result<Peer, Refusal> {
        let theirs = self.their_versions();
        let version = *theirs.end().min(self.versions.end());
        if !theirs.contains(&version) || !self.versions.contains(&version) {
            return Err(Refusal::Versions { theirs, ours: self.versions.clone() });
        }
        // The answer is not said yet when the acceptor considers: keys hang on what both know by then.
        let [connector_hello, acceptor_hello, connector_identity, _] = self.said.parts();
        let said = [connector_hello, acceptor_hello, connector_identity];
        let (connector, acceptor) = (self.secret.key(CONNECTOR_KEY, &said), self.secret.key(ACCEPTOR_KEY, &said));
        let (our_key, its_key) = match self.role {
            Role::Connector => (connector, acceptor),
            Role::Acceptor => (acceptor, connector),
        };
        Ok(Peer { identity, knows: 0, version, its_key, our_key })
    }

    fn their_versions(&self) -> RangeInclusive<u16> {
        let hello = match self.role {
            Role::Connector => &self.said.acceptor_hello,
            Role::Acceptor => &self.said.connector_hello,
        };
        // It was looked at when it came.
        codec::take_hello(hello).unwrap_or(0..=0)
    }

    /// What the other's verdict means here.
    fn heard(&mut self, verdict: &[u8]) -> Result<Result<(), Refusal>, Refusal> {
        let versions = Refusal::Versions { theirs: self.their_versions(), ours: self.versions.clone() };
        let verdict = codec::take_verdict(verdict, &versions).ok_or(Refusal::NoNode)?;
        Ok(verdict.map(|knows| self.knows = knows))
    }

    /// Tells the other, which has proved itself, what is made of it.
    fn pronounce(&mut self, verdict: &Result<u64, Refusal>, out: &mut Vec<Output>) {
        let verdict = codec::put_verdict(verdict);
        match self.role {
            Role::Acceptor => {
                self.said.answer = [codec::put_identity(&self.ours), verdict].concat();
                let proof = self.secret.sign(ACCEPTOR_ANSWER, &self.said.parts());
                out.push(Output::Send(put_message(ANSWER, &[&self.said.answer, &proof])));
            }
            Role::Connector => {
                let parts = self.said.parts();
                let said = [&parts[..], &[&verdict]].concat();
                let proof = self.secret.sign(CONNECTOR_VERDICT, &said);
                out.push(Output::Send(put_message(VERDICT, &[&verdict, &proof])));
            }
        }
    }

    /// The other has not proved itself, or cannot any more.
    fn refuse(&mut self, why: Refusal, out: &mut Vec<Output>) {
        if why == Refusal::NotAuthenticated {
            out.push(Output::Send(put_message(STRANGER, &[])));
        }
        self.end(why, true, out);
    }

    fn done(&mut self, out: &mut Vec<Output>) {
        self.step = Step::Over;
        let Some(peer) = self.peer.take() else { return };
        let peer = Peer { knows: self.knows, ..peer };
        out.push(Output::Done { peer, rest: std::mem::take(&mut self.pending) });
    }

    fn end(&mut self, why: Refusal, by_us: bool, out: &mut Vec<Output>) {
        self.step = Step::Over;
        self.pending = Vec::new();
        out.push(Output::Refused { why, by_us });
    }
}

fn split_proof(fields: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let at = fields.len().checked_sub(PROOF_BYTES).ok_or(Refusal::NoNode)?;
    Ok(fields.split_at(at))
}
