//! The socket of a link, with a TLS session on it or without. Nothing here waits.

use std::io::{ErrorKind, Read, Write};

use broker_amqp::SendBuffer;
use mio::net::TcpStream;

use super::client::{self, Progress, SLICES_MAX};

/// Encrypted octets that may wait for the socket to take them.
const WRITE_MAX_BYTES: usize = 256 * 1024;

/// A connected socket and the TLS session on it.
pub type Socket = (std::net::TcpStream, Option<Box<rustls::Connection>>);

/// See the module's page.
pub struct LinkStream {
    socket: TcpStream,
    tls: Option<Box<rustls::Connection>>,
}

impl LinkStream {
    /// Both ends have shaken hands.
    pub fn new(socket: TcpStream, mut tls: Option<Box<rustls::Connection>>) -> LinkStream {
        if let Some(session) = &mut tls {
            session.set_buffer_limit(Some(WRITE_MAX_BYTES));
        }
        LinkStream { socket, tls }
    }

    /// The socket, to register it.
    pub fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// Reads once.
    pub fn read(&mut self, buffer: &mut [u8]) -> Progress {
        let Some(session) = &mut self.tls else { return client::read(&mut self.socket, buffer) };
        loop {
            match session.reader().read(buffer) {
                Ok(0) => return Progress::Gone,
                // The session may hold more, of which the socket says nothing.
                Ok(octets) => return Progress::Some(octets),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Progress::Gone,
            }
            match session.read_tls(&mut self.socket) {
                Ok(0) => return Progress::Gone,
                Ok(_) if session.process_new_packets().is_err() => return Progress::Gone,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Dry(0),
                Err(_) => return Progress::Gone,
            }
        }
    }

    /// Writes until nothing is left or the socket takes no more. False if it has failed.
    pub fn write(&mut self, source: &mut SendBuffer) -> bool {
        let Some(session) = &mut self.tls else { return client::write(&mut self.socket, source) != Progress::Gone };
        loop {
            if !source.is_empty() {
                let taken = session.writer().write_vectored(&source.as_io_slices(SLICES_MAX));
                match taken {
                    Ok(octets) => source.consume(octets),
                    Err(_) => return false,
                }
            }
            if !session.wants_write() {
                return true;
            }
            match session.write_tls(&mut self.socket) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }
}
