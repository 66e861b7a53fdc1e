//! What a node's part in a cluster stands on: the network and chance. They are the machine's, or what a simulation of whole nodes gives.
//!
//! Which of the two is said when the node starts, not when it is built: the code that is simulated is the code that runs.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use broker_meta::raft::{Applied, Compaction, Listener as OfLog, Writing};
use rustix::rand::{GetRandomFlags, getrandom};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// A stream whose octets are not taken for so long has failed: the other machine is gone, and does not say so.
const SILENCE: Duration = Duration::from_secs(5);

/// See the module's page.
#[derive(Clone)]
pub enum Ground {
    /// The machine the process runs on.
    Machine,
    /// What is given in its place.
    Given(Arc<dyn Given>),
}

/// A stream of octets both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {
    /// A socket that stands for it from now on, for whoever drives it without tokio.
    fn into_socket(self: Box<Self>) -> io::Result<std::net::TcpStream>;
}

/// A result that is waited for.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A network and chance in place of the machine's.
pub trait Given: Send + Sync {
    /// Opens a stream to an address, `host:port`.
    fn connect(&self, address: &str) -> Pending<io::Result<Box<dyn Duplex>>>;
    /// Takes streams and datagrams at a port.
    fn listen(&self, address: SocketAddr) -> io::Result<(Arc<dyn GivenListener>, Arc<dyn GivenDatagrams>)>;
    /// What an address, `host:port`, stands for.
    fn resolve(&self, address: &str) -> Vec<SocketAddr>;
    /// Fills octets by chance.
    fn random(&self, octets: &mut [u8]);
    /// The node cannot go on: on a machine the process would end.
    fn failed(&self, why: &str);
    /// Overhears what the node applies of the log.
    fn applied(&self, applied: &Applied);
    /// When the beginning of the catalog's log is given up.
    fn compaction(&self) -> Compaction;
}

/// Where streams come in.
pub trait GivenListener: Send + Sync {
    /// The next one.
    fn accept(&self) -> Pending<io::Result<(Box<dyn Duplex>, SocketAddr)>>;
}

/// Where datagrams come in and go out.
pub trait GivenDatagrams: Send + Sync {
    /// The next one, as much of it as the buffer takes.
    fn poll_receive(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;
    /// Sends one; whether it arrives is not known.
    fn send(&self, octets: &[u8], to: SocketAddr) -> io::Result<()>;
}

/// Where streams of other nodes come in.
pub enum Listener {
    /// The machine's.
    Machine(TcpListener),
    /// What is given.
    Given(Arc<dyn GivenListener>),
}

/// Where datagrams of other nodes come in.
pub enum Datagrams {
    /// The machine's.
    Machine(UdpSocket),
    /// What is given.
    Given(Arc<dyn GivenDatagrams>),
}

/// A stream to or from another node, before anything is said on it.
pub enum Stream {
    /// The machine's.
    Machine(TcpStream),
    /// What is given.
    Given(Box<dyn Duplex>),
}

impl Ground {
    /// Opens a stream to an address, `host:port`.
    pub async fn connect(&self, address: &str) -> io::Result<Stream> {
        match self {
            Ground::Machine => prepared(TcpStream::connect(address).await?),
            Ground::Given(given) => Ok(Stream::Given(given.connect(address).await?)),
        }
    }

    /// Takes streams and datagrams at a port; also the address at which it does.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<(Listener, Datagrams, SocketAddr)> {
        match self {
            Ground::Machine => {
                let listener = TcpListener::bind(address).await?;
                let bound = listener.local_addr()?;
                let datagrams = UdpSocket::bind(bound).await?;
                Ok((Listener::Machine(listener), Datagrams::Machine(datagrams), bound))
            }
            Ground::Given(given) => {
                let (listener, datagrams) = given.listen(address)?;
                Ok((Listener::Given(listener), Datagrams::Given(datagrams), address))
            }
        }
    }

    /// What an address, `host:port`, stands for.
    pub async fn resolve(&self, address: &str) -> io::Result<Vec<SocketAddr>> {
        match self {
            Ground::Machine => Ok(tokio::net::lookup_host(address).await?.collect()),
            Ground::Given(given) => Ok(given.resolve(address)),
        }
    }

    /// The first address of that; none if that is not known.
    pub async fn resolve_one(&self, address: &str) -> Option<SocketAddr> {
        self.resolve(address).await.ok()?.first().copied()
    }

    /// Octets that nobody can guess.
    pub fn random<const N: usize>(&self) -> io::Result<[u8; N]> {
        let mut octets = [0; N];
        match self {
            Ground::Machine => {
                getrandom(&mut octets, GetRandomFlags::empty())?;
            }
            Ground::Given(given) => given.random(&mut octets),
        }
        Ok(octets)
    }

    /// The node cannot go on.
    pub fn failed(&self, why: &str) {
        match self {
            Ground::Machine => crate::driver::fatal(why),
            Ground::Given(given) => given.failed(why),
        }
    }

    /// What hears of everything that is applied; what is given overhears it.
    pub fn overheard(&self, mut listener: OfLog) -> OfLog {
        match self {
            Ground::Machine => listener,
            Ground::Given(given) => {
                let given = given.clone();
                Box::new(move |applied| {
                    given.applied(&applied);
                    listener(applied);
                })
            }
        }
    }

    /// Who writes the log of the catalog.
    pub fn writing(&self) -> Writing {
        match self {
            Ground::Machine => Writing::Thread,
            Ground::Given(_) => Writing::Here,
        }
    }

    /// When the beginning of the catalog's log is given up.
    pub fn compaction(&self) -> Compaction {
        match self {
            Ground::Machine => Compaction::default(),
            Ground::Given(given) => given.compaction(),
        }
    }
}

impl Listener {
    /// The next stream, and from where it comes.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Listener::Machine(listener) => {
                let (stream, from) = listener.accept().await?;
                Ok((Stream::Machine(stream), from))
            }
            Listener::Given(listener) => {
                let (stream, from) = listener.accept().await?;
                Ok((Stream::Given(stream), from))
            }
        }
    }
}

impl Datagrams {
    /// The next datagram, as much of it as the buffer takes.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Datagrams::Machine(socket) => socket.recv_from(buffer).await.map(|(octets, _)| octets),
            Datagrams::Given(given) => std::future::poll_fn(|context| given.poll_receive(context, buffer)).await,
        }
    }

    /// Sends one, unless the machine has no room for it.
    pub fn send(&self, octets: &[u8], to: SocketAddr) -> io::Result<()> {
        match self {
            Datagrams::Machine(socket) => socket.try_send_to(octets, to).map(|_| ()),
            Datagrams::Given(given) => given.send(octets, to),
        }
    }
}

impl Stream {
    /// What the machine is to know of a stream that was accepted.
    pub fn prepare(self) -> io::Result<Stream> {
        match self {
            Stream::Machine(stream) => prepared(stream),
            given @ Stream::Given(_) => Ok(given),
        }
    }

    /// The socket, for whoever drives it without tokio.
    pub fn into_socket(self) -> io::Result<std::net::TcpStream> {
        match self {
            Stream::Machine(stream) => stream.into_std(),
            Stream::Given(stream) => stream.into_socket(),
        }
    }
}

fn prepared(stream: TcpStream) -> io::Result<Stream> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(2)).with_interval(Duration::from_secs(1));
    socket.set_tcp_keepalive(&keepalive.with_retries(3))?;
    socket.set_tcp_user_timeout(Some(SILENCE))?;
    Ok(Stream::Machine(stream))
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Machine(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Given(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Machine(stream) => Pin::new(stream).poll_write(context, octets),
            Stream::Given(stream) => Pin::new(stream).poll_write(context, octets),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Machine(stream) => Pin::new(stream).poll_flush(context),
            Stream::Given(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Machine(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Given(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Machine(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Given(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
