//! The socket of a link, with a TLS session on it or without. Nothing here waits.

use std::io::{self, ErrorKind, Read, Write};

use broker_amqp::SendBuffer;
use mio::net::TcpStream;

use super::client::SLICES_MAX;

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

    /// Reads what there is, 0 at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &mut self.tls else { return self.socket.read(buffer) };
        loop {
            match session.reader().read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            if session.read_tls(&mut self.socket)? == 0 {
                return Ok(0);
            }
            session.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Writes until nothing is left or the socket takes no more. False if it has failed.
    pub fn write(&mut self, source: &mut SendBuffer) -> bool {
        loop {
            let outcome = match &mut self.tls {
                None if source.is_empty() => return true,
                None => self.socket.write_vectored(&source.as_io_slices(SLICES_MAX)),
                Some(session) => {
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
                    session.write_tls(&mut self.socket)
                }
            };
            match outcome {
                Ok(0) => return false,
                // Of a session's octets it keeps account itself.
                Ok(octets) if self.tls.is_none() => source.consume(octets),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
    }
}
