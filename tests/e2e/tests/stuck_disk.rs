//! A disk that does not answer: only who waits for it is held up.
//!
//! `strace` holds every `fdatasync` of the broker back.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use e2e::wire::{Said, Wire, ack, publish};
use harness::{Broker, Brokerd, Options};
use rustix::process::{Pid, Signal, kill_process};

/// Longer than the test.
const STUCK: &str = "inject=fdatasync:delay_enter=60s";

/// Holds the syncs of a process back until it is dropped.
struct StuckSyncs {
    strace: Child,
    /// Without anybody to read it, strace would end at its next word.
    _words: BufReader<ChildStderr>,
}

impl StuckSyncs {
    /// `None` where there is no strace, or it may not trace.
    fn of(pid: u32) -> Option<StuckSyncs> {
        let mut command = Command::new("strace");
        command.args(["-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", STUCK, "-p", &pid.to_string()]);
        let mut strace = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().ok()?;
        // It says so when it is attached to all threads; `attach: ...` is why it is not.
        let mut line = String::new();
        let mut words = BufReader::new(strace.stderr.take()?);
        words.read_line(&mut line).ok()?;
        let stuck = StuckSyncs { strace, _words: words };
        line.contains("attached").then_some(stuck)
    }
}

impl Drop for StuckSyncs {
    fn drop(&mut self) {
        // Told so, it lets go of what it holds.
        let pid = i32::try_from(self.strace.id()).ok().and_then(Pid::from_raw);
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let _ = self.strace.wait();
    }
}

#[test]
fn who_does_not_wait_for_the_disk_goes_on() {
    const SILENCE: Duration = Duration::from_secs(2);
    let broker = Brokerd::start(Options::default()).unwrap_or_else(|error| panic!("{error}"));
    let open = || Wire::open(broker.amqp_port()).unwrap();
    let mut persistent = open();
    persistent.declare("durable", true).unwrap();
    persistent.confirm_select(1).unwrap();
    persistent.send(&publish(1, "durable", true, b"stored")).unwrap();
    assert_eq!(persistent.listen().unwrap(), Said::Ack(1, false));
    let Some(stuck) = StuckSyncs::of(broker.pid()) else {
        eprintln!("strace cannot be had here");
        return;
    };
    // More than may wait for the store: this publisher is not read from any more.
    let flood = std::thread::spawn({
        let mut flooding = open();
        move || {
            for _ in 0..800 {
                flooding.send(&publish(1, "durable", true, &[7; 64 * 1024])).unwrap();
            }
        }
    });
    persistent.send(&publish(1, "durable", true, b"waits")).unwrap();
    assert_eq!(persistent.listen_for(SILENCE).unwrap(), None, "confirmed without a sync");

    // Transient messages, queues and connections; also a consumer of what is there of the durable queue.
    let mut transient = open();
    transient.declare("transient", false).unwrap();
    transient.confirm_select(1).unwrap();
    let mut consumer = open();
    consumer.consume(1, "transient", false).unwrap();
    for number in 1..=50 {
        transient.send(&publish(1, "transient", false, b"through")).unwrap();
        assert_eq!(transient.listen().unwrap(), Said::Ack(number, false));
        let Said::Delivery { tag, .. } = consumer.listen().unwrap() else { panic!("no delivery") };
        consumer.send(&ack(1, tag, false)).unwrap();
    }
    // The first publisher is held back as well; with nothing published it is still listened to.
    persistent.prefetch(1, 1).unwrap();
    persistent.consume(1, "transient", false).unwrap();
    drop(consumer);
    for number in 51..=60 {
        transient.send(&publish(1, "transient", false, b"through")).unwrap();
        assert_eq!(transient.listen().unwrap(), Said::Ack(number, false));
        let Said::Delivery { tag, .. } = persistent.listen().unwrap() else { panic!("no delivery") };
        persistent.send(&ack(1, tag, false)).unwrap();
    }
    // An acknowledgement behind a publish waits with it: were it carried out first, a broker that ends now would lose the message and what became of it.
    transient.send(&publish(1, "transient", false, b"a request")).unwrap();
    let Said::Delivery { tag, .. } = persistent.listen().unwrap() else { panic!("no delivery") };
    persistent.send(&publish(1, "durable", true, b"its result")).unwrap();
    persistent.send(&ack(1, tag, false)).unwrap();
    transient.send(&publish(1, "transient", false, b"another")).unwrap();
    assert_eq!(persistent.listen_for(SILENCE).unwrap(), None, "the acknowledgement overtook the publish");
    let mut reader = open();
    assert_eq!(reader.get("durable").unwrap(), Some(b"stored".to_vec()));
    assert!(!flood.is_finished(), "everything was taken, though nothing can be stored");

    drop(stuck);
    let answered = persistent.listen().unwrap();
    assert!(matches!(answered, Said::Ack(2, _)), "{answered:?}");
    persistent.find(|said| matches!(said, Said::Delivery { body, .. } if body == b"another")).unwrap();
    persistent.find(|said| matches!(said, Said::Ack(3, _))).unwrap();
    flood.join().unwrap();
}
