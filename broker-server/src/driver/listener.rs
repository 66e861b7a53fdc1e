//! Where clients come in: a listening socket, or what a simulation of whole nodes gives in its place.

use std::io;
use std::net::SocketAddr;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

/// See the module's page. It closes when it is dropped.
pub enum Listener {
    /// A socket.
    Machine(TcpListener),
    /// What is given.
    Given(Box<dyn Given>),
}

/// A place where clients come in, which tells nobody when they do: it is asked in every turn.
pub trait Given {
    /// The next client, and from where it comes.
    fn accept(&self) -> io::Result<(std::net::TcpStream, SocketAddr)>;
    /// Where it is.
    fn address(&self) -> SocketAddr;
}

impl Listener {
    /// Has clients that come told of under this token.
    pub fn watch(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Listener::Machine(socket) => socket.register(registry, token, Interest::READABLE),
            Listener::Given(_) => Ok(()),
        }
    }

    /// Nothing is told of it any more.
    pub fn leave(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Listener::Machine(socket) => socket.deregister(registry),
            Listener::Given(_) => Ok(()),
        }
    }

    /// The next client, and from where it comes.
    pub fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match self {
            Listener::Machine(socket) => socket.accept(),
            Listener::Given(given) => given.accept().map(|(socket, from)| (TcpStream::from_std(socket), from)),
        }
    }

    /// Where it is.
    pub fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Listener::Machine(socket) => socket.local_addr(),
            Listener::Given(given) => Ok(given.address()),
        }
    }
}
