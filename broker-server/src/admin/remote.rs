//! The admin service's TCP port: TLS, and bounds for those who are not known yet.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::caller::Caller;
use super::login::Logins;
use super::seats::{Seat, Seats};
use crate::tls::Handshakes;

/// What is spoken inside TLS.
pub const PROTOCOLS: &[&[u8]] = &[b"h2"];
/// After a failed accept, for want of file descriptors say, others get time to go.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where users come in from elsewhere.
pub struct RemoteDoor {
    /// The port.
    pub listener: std::net::TcpListener,
    /// Its TLS.
    pub handshakes: Arc<Handshakes>,
    /// Who may.
    pub logins: Arc<Logins>,
}

/// The other end of a connection. Cheap to clone.
#[derive(Clone)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    seat: Arc<Seat>,
}

impl Peer {
    /// A user has logged in there.
    pub fn has_logged_in(&self, caller: &Caller) {
        if self.seat.is_known() {
            let (user, tags) = (caller.user.name.as_str(), caller.user.tags.join(","));
            tracing::info!(peer = %self.address, user, tags, "an operator has logged in");
        }
    }
}

/// A connection that has finished its handshake.
pub struct RemoteStream {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

/// Accepts connections for as long as somebody takes them.
pub async fn accept(
    listener: std::net::TcpListener,
    handshakes: Arc<Handshakes>,
    accepted: mpsc::Sender<io::Result<RemoteStream>>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let seats = Arc::new(Seats::default());
    loop {
        let arrived = tokio::select! {
            arrived = listener.accept() => arrived,
            () = accepted.closed() => return Ok(()),
        };
        match arrived {
            Ok((stream, address)) => {
                let Some(seat) = seat(&seats, &stream, address) else {
                    tracing::debug!(peer = %address, "a connection of an operator was turned away: all seats are taken");
                    continue;
                };
                let peer = Peer { address, seat: Arc::new(seat) };
                tokio::spawn(shake_hands(stream, peer, handshakes.clone(), accepted.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of an operator");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn seat(seats: &Arc<Seats>, stream: &TcpStream, address: SocketAddr) -> Option<Seat> {
    // A second handle of the socket: whoever owns the first finds it closed.
    let socket = SockRef::from(stream).try_clone().ok()?;
    seats.take(address.ip(), move || drop(socket.shutdown(Shutdown::Both)))
}

async fn shake_hands(
    stream: TcpStream,
    peer: Peer,
    handshakes: Arc<Handshakes>,
    accepted: mpsc::Sender<io::Result<RemoteStream>>,
) {
    let current = handshakes.current();
    // Requests and answers are small, and somebody waits for each.
    drop(stream.set_nodelay(true));
    let handshake = TlsAcceptor::from(current.server.clone()).accept(stream);
    match tokio::time::timeout(current.timeout, handshake).await {
        // Nobody is left to take it when the node goes down.
        Ok(Ok(stream)) => drop(accepted.send(Ok(RemoteStream { stream, peer })).await),
        Ok(Err(error)) => tracing::warn!(peer = %peer.address, "the TLS handshake of an operator failed: {error}"),
        Err(_) => tracing::warn!(peer = %peer.address, "the TLS handshake of an operator took too long"),
    }
}

impl Connected for RemoteStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for RemoteStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for RemoteStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, octets)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
