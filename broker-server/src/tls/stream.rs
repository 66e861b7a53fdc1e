//! A TLS session over a socket that does not block.
//!
//! All octets that a read of the socket brings are decrypted at once, into a buffer of the caller's that has room for them: nothing that is decrypted
//! waits here, so when the socket is dry, the stream is. What the session wants to say itself (its part of the handshake, alerts, new keys) is
//! written right after the read that caused it; if the socket takes no more, its next being writable leads to [`TlsStream::write`].

use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use broker_amqp::SendBuffer;
use mio::net::TcpStream;
use rustls::ServerConnection;

use super::peer::TlsPeer;
use crate::config::tls::LoginFrom;
use crate::driver::client::{Progress, SLICES_MAX};

/// Octets of the handshake a client may send: a chain of a few certificates is 10 KiB.
pub const HANDSHAKE_MAX_BYTES: usize = 32 * 1024;
/// Encrypted octets that may wait for the socket to take them.
pub const WRITE_MAX_BYTES: usize = 64 * 1024;
/// What may have come of a record before the read that completes it: decrypted, it needs room too.
const RECORD_MAX_BYTES: usize = 20 * 1024;

/// See the module's page.
pub struct TlsStream {
    socket: TcpStream,
    session: ServerConnection,
    /// Octets received before the handshake was over.
    handshake_bytes: usize,
    /// When the handshake must be over; none: it is.
    deadline: Option<Instant>,
    login_from: LoginFrom,
    /// Known when the handshake is over.
    peer: Option<Box<TlsPeer>>,
    /// Nothing more will be read.
    ended: bool,
    /// What broke the session.
    fault: Option<String>,
    /// The client was told that nothing more comes.
    said_goodbye: bool,
}

impl TlsStream {
    /// A session whose handshake begins.
    pub(super) fn new(
        socket: TcpStream,
        mut session: ServerConnection,
        deadline: Instant,
        login_from: LoginFrom,
    ) -> Self {
        session.set_buffer_limit(Some(WRITE_MAX_BYTES));
        Self {
            socket,
            session,
            handshake_bytes: 0,
            deadline: Some(deadline),
            login_from,
            peer: None,
            ended: false,
            fault: None,
            said_goodbye: false,
        }
    }

    /// The socket, to register it.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// The socket, to ask it.
    pub fn socket_ref(&self) -> &TcpStream {
        &self.socket
    }

    /// Who the client is, once the handshake is over.
    #[must_use]
    pub fn peer(&self) -> Option<&TlsPeer> {
        self.peer.as_deref()
    }

    /// When the handshake must be over, if it is not.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What broke the session, for the log.
    pub fn take_fault(&mut self) -> Option<String> {
        self.fault.take()
    }

    /// Reads the socket once; what was in the records is at the beginning of `buffer` then.
    pub fn read(&mut self, buffer: &mut [u8]) -> Progress {
        if self.ended {
            return Progress::Gone;
        }
        // As much room for what comes out as for what goes in, and for the part of a record that came before.
        let half = buffer.len().saturating_sub(RECORD_MAX_BYTES) / 2;
        let (plain, encrypted) = buffer.split_at_mut(buffer.len() - half);
        let octets = loop {
            match self.socket.read(encrypted) {
                Ok(0) => return Progress::Gone,
                Ok(octets) => break octets,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Dry(0),
                Err(_) => return Progress::Gone,
            }
        };
        let decrypted = self.decrypt(encrypted.get(..octets).unwrap_or_default(), plain);
        if self.session.wants_write() && self.flush() == Flush::Gone {
            self.ended = true;
        }
        if self.ended || octets == half { Progress::Some(decrypted) } else { Progress::Dry(decrypted) }
    }

    /// Writes until nothing is left or the socket takes no more, in records as large as can be. With `last`, the client is told then that nothing more
    /// comes.
    pub fn write(&mut self, source: &mut SendBuffer, last: bool) -> Progress {
        let mut taken = 0;
        loop {
            match self.flush() {
                Flush::Done => {}
                Flush::Blocked => return Progress::Dry(taken),
                Flush::Gone => return Progress::Gone,
            }
            if self.session.is_handshaking() {
                // There is nothing yet that the client could be told.
                return Progress::Some(taken);
            }
            if !source.is_empty() {
                let outcome = self.session.writer().write_vectored(&source.as_io_slices(SLICES_MAX));
                match outcome {
                    Ok(octets) if octets > 0 => {
                        source.consume(octets);
                        taken += octets;
                    }
                    _ => return Progress::Gone,
                }
            } else if last && !std::mem::replace(&mut self.said_goodbye, true) {
                self.session.send_close_notify();
            } else {
                return Progress::Some(taken);
            }
        }
    }

    /// Takes encrypted octets and answers how many came out.
    fn decrypt(&mut self, mut encrypted: &[u8], plain: &mut [u8]) -> usize {
        let mut count = 0;
        while !encrypted.is_empty() && !self.ended {
            let before = encrypted.len();
            match self.session.read_tls(&mut encrypted) {
                Ok(0) => self.end("it takes no more octets".into()),
                Ok(_) => {}
                Err(error) => self.end(error.to_string()),
            }
            match self.session.process_new_packets() {
                Ok(state) => self.ended |= state.peer_has_closed(),
                Err(error) => self.end(error.to_string()),
            }
            count += self.take(plain.get_mut(count..).unwrap_or_default());
            self.note_handshake(before - encrypted.len());
        }
        count
    }

    /// What is decrypted, as long as there is any.
    fn take(&mut self, plain: &mut [u8]) -> usize {
        let mut count = 0;
        let mut reader = self.session.reader();
        while let Some(room) = plain.get_mut(count..).filter(|room| !room.is_empty()) {
            match reader.read(room) {
                Ok(octets) if octets > 0 => count += octets,
                // Dry, or the end, which the session's state tells of.
                _ => break,
            }
        }
        count
    }

    fn note_handshake(&mut self, octets: usize) {
        if self.deadline.is_none() {
            return;
        }
        self.handshake_bytes += octets;
        if !self.session.is_handshaking() {
            self.deadline = None;
            let peer = TlsPeer::of(&self.session, self.login_from);
            let subject = peer.certificate.as_ref().map(|certificate| &*certificate.subject);
            tracing::debug!(version = peer.version, suite = ?peer.suite, subject, "TLS handshake done");
            self.peer = Some(Box::new(peer));
        } else if self.handshake_bytes > HANDSHAKE_MAX_BYTES {
            self.end("the handshake is too long".into());
        }
    }

    fn end(&mut self, why: String) {
        let what = if self.deadline.is_some() { "the TLS handshake failed" } else { "the TLS session failed" };
        self.fault.get_or_insert_with(|| format!("{what}: {why}"));
        self.ended = true;
    }

    /// Writes what is encrypted already.
    fn flush(&mut self) -> Flush {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Flush::Gone,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Flush::Blocked,
                Err(_) => return Flush::Gone,
            }
        }
        Flush::Done
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    Done,
    Blocked,
    Gone,
}
