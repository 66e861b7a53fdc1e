//! A client that has nothing to do with what is done in bulk: it sends itself a message every millisecond, and notes how long each takes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::bulk::publish;
use crate::session::Session;
use crate::wire;

const QUEUE: &str = "probe";
const PAUSE: Duration = Duration::from_millis(1);

pub(super) struct Probe {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Vec<Duration>>>,
}

impl Probe {
    /// Returns when the first message has come.
    pub fn start(address: SocketAddr) -> io::Result<Self> {
        let mut session = Session::open(address)?;
        session.call(
            1,
            wire::QUEUE_DECLARE,
            |out| crate::session::queue_declare_arguments(out, QUEUE, EXCLUSIVE),
            wire::QUEUE_DECLARE_OK,
        )?;
        session.consume(QUEUE, "probe", true)?;
        round(&mut session)?;
        let ends = Arc::new(AtomicBool::new(false));
        let told = ends.clone();
        Ok(Probe { ends, thread: std::thread::spawn(move || run(session, &told)) })
    }

    /// How long a message took 99 of 100 times at most, and the longest time.
    pub fn stop(self) -> io::Result<(Duration, Duration)> {
        self.ends.store(true, Ordering::Relaxed);
        let mut times = self.thread.join().map_err(|_| io::Error::other("the probe panicked"))??;
        times.sort_unstable();
        let at = |share: f64| times.get((times.len() as f64 * share) as usize).or(times.last()).copied();
        at(0.99).zip(at(1.0)).ok_or_else(|| io::Error::other("the probe sent nothing"))
    }
}

const EXCLUSIVE: u8 = 4;

fn run(mut session: Session, ends: &AtomicBool) -> io::Result<Vec<Duration>> {
    let mut times = Vec::new();
    loop {
        times.push(round(&mut session)?);
        if ends.load(Ordering::Relaxed) {
            session.close()?;
            return Ok(times);
        }
        std::thread::sleep(PAUSE);
    }
}

fn round(session: &mut Session) -> io::Result<Duration> {
    let started = Instant::now();
    publish(session, "", QUEUE, b"x")?;
    session.expect(wire::BASIC_DELIVER)?;
    // Its header and its body.
    session.receive()?;
    session.receive()?;
    Ok(started.elapsed())
}
