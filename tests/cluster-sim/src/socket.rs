//! Sockets of the machine for those that know no others: the shard, and the clients that speak to it. They lead from the process to itself, and what is
//! written can be read at once: nothing of them is chance.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use conformance::frame::{self, Frame};

/// Octets read at once.
const READ_BYTES: usize = 64 * 1024;
/// The class of what is said on links, and of that some operations.
const LINK_CLASS: u16 = 200;
const PUBLISH: u16 = 10;
const DELIVER: u16 = 30;
const GOT: u16 = 31;
const GOT_NOTHING: u16 = 32;
const ANNOUNCE: u16 = 42;
/// Where the flags of a delivery and of what was got are, and the one that says that it may have been delivered before.
const DELIVER_FLAGS: usize = 34;
const GOT_FLAGS: usize = 38;
const REDELIVERED: u8 = 4;
/// One queue: none.
const ONE_NO_QUEUE: [u8; 10] = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0];

/// Our end of a socket. The other is somebody's who knows no difference to one of a network.
pub struct Socket {
    stream: UnixStream,
    /// What is read comes here first.
    buffer: Box<[u8]>,
    has_ended: bool,
    tampered: Option<(Tampering, Tampered)>,
}

/// What came of the other end.
pub enum Heard {
    /// Nothing yet.
    Nothing,
    /// These.
    Octets(Vec<u8>),
    /// It is closed.
    End,
}

/// Broken rules: what befalls what a shard says on links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampering {
    /// Of two publishes, one behind the other, the second comes first.
    SwapsPublishes,
    /// What exclusive queues there are when a link comes up is not said.
    KeepsAnnouncements,
    /// Nothing is marked as redelivered.
    LosesMarks,
    /// Messages for no queue are lost: direct replies.
    LosesReplies,
    /// That there is nothing to get is not said.
    LeavesGets,
}

/// What has not gone on yet.
#[derive(Default)]
struct Tampered {
    octets: Vec<u8>,
    /// A publish and its content, and whether it is complete.
    publish: Option<Vec<u8>>,
    /// Frames of content belong to the publish that is tampered with.
    in_publish: bool,
    second: Vec<u8>,
    /// What a link begins with has been said.
    has_begun: bool,
}

impl Socket {
    /// Two ends: ours, and one that looks like any other socket.
    pub fn pair(tampering: Option<Tampering>) -> io::Result<(Socket, TcpStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let tampered = tampering.map(|tampering| (tampering, Tampered::default()));
        let buffer = vec![0; READ_BYTES].into();
        Ok((Socket { stream: ours, buffer, has_ended: false, tampered }, OwnedFd::from(theirs).into()))
    }

    /// Gives it octets. How many it takes.
    pub fn give(&mut self, octets: &[u8]) -> usize {
        // If the other end is closed, that is heard when it is read.
        self.stream.write(octets).unwrap_or(0)
    }

    /// Nothing more comes.
    pub fn end(&mut self) {
        if !std::mem::replace(&mut self.has_ended, true) {
            // The other end may be closed.
            drop(self.stream.shutdown(Shutdown::Write));
        }
    }

    /// What it says, so many octets at most.
    pub fn hear(&mut self, room: usize) -> Heard {
        if room == 0 {
            return Heard::Nothing;
        }
        match self.stream.read(&mut self.buffer[..room.min(READ_BYTES)]) {
            Ok(0) => Heard::End,
            Ok(count) => {
                let octets = &self.buffer[..count];
                let octets = match &mut self.tampered {
                    Some((tampering, tampered)) => tampered.pass(*tampering, octets),
                    None => octets.to_vec(),
                };
                if octets.is_empty() { Heard::Nothing } else { Heard::Octets(octets) }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Heard::Nothing,
            Err(_) => Heard::End,
        }
    }
}

impl Tampered {
    fn pass(&mut self, tampering: Tampering, octets: &[u8]) -> Vec<u8> {
        self.octets.extend(octets);
        let mut out = Vec::new();
        while let Some(Frame { kind, channel, mut payload, .. }) = frame::take(&mut self.octets) {
            let operation = operation(&payload).filter(|_| kind == frame::METHOD);
            if tampering == Tampering::LosesMarks {
                let flags = match operation {
                    Some(DELIVER) => payload.get_mut(DELIVER_FLAGS),
                    Some(GOT) => payload.get_mut(GOT_FLAGS),
                    _ => None,
                };
                flags.into_iter().for_each(|flags| *flags &= !REDELIVERED);
            }
            let octets = frame::encode(kind, channel, &payload);
            match tampering {
                Tampering::LosesMarks => out.extend(octets),
                Tampering::LeavesGets if operation == Some(GOT_NOTHING) => {}
                Tampering::LeavesGets => out.extend(octets),
                Tampering::LosesReplies => {
                    if kind == frame::METHOD {
                        self.in_publish = operation == Some(PUBLISH) && payload.get(4..14) == Some(&ONE_NO_QUEUE);
                    }
                    if !self.in_publish {
                        out.extend(octets);
                    }
                }
                Tampering::KeepsAnnouncements => {
                    if operation != Some(ANNOUNCE) || self.has_begun {
                        out.extend(octets);
                    }
                }
                Tampering::SwapsPublishes => self.swap(kind, &payload, &octets, &mut out),
            }
        }
        self.has_begun = true;
        out
    }

    /// Holds a publish until it is seen whether another follows.
    fn swap(&mut self, kind: u8, payload: &[u8], octets: &[u8], out: &mut Vec<u8>) {
        if kind != frame::METHOD {
            return match (&mut self.publish, self.in_publish) {
                (Some(publish), true) if self.second.is_empty() => publish.extend(octets),
                (Some(_), true) => self.second.extend(octets),
                _ => out.extend(octets),
            };
        }
        let is_publish = operation(payload) == Some(PUBLISH);
        if is_publish && self.publish.is_some() && self.second.is_empty() {
            self.second.extend(octets);
            return;
        }
        out.append(&mut self.second);
        out.extend(self.publish.take().unwrap_or_default());
        self.in_publish = is_publish;
        if is_publish {
            self.publish = Some(octets.to_vec());
        } else {
            out.extend(octets);
        }
    }
}

/// Which operation of a link it is.
fn operation(payload: &[u8]) -> Option<u16> {
    let &[c0, c1, m0, m1] = payload.first_chunk()?;
    (u16::from_be_bytes([c0, c1]) == LINK_CLASS).then(|| u16::from_be_bytes([m0, m1]))
}
