//! The memory alarm as real memory sets it off: publishers wait, everybody else goes on, and it is over when the queue has been drained. The limit
//! of a control group counts.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use e2e::wire::{PATIENCE, Said, Wire, ack, publish};
use harness::{Broker, Brokerd, ControlGroup, Limit, Options};
use tempfile::TempDir;

/// What the broker may grow by before publishers are blocked.
const ROOM_BYTES: u64 = 8 << 20;
const BODY: &[u8] = &[7; 200];
/// Nothing is said for so long: nothing is going on.
const SILENCE: Duration = Duration::from_millis(700);

fn set_watermark(broker: &Brokerd, bytes: u64) {
    let said = broker.control().run(&["set_vm_memory_high_watermark", "absolute", &bytes.to_string()]).unwrap();
    assert!(said.succeeded, "{}", said.text);
}

#[test]
fn publishers_wait_for_memory_and_everybody_else_goes_on() {
    let broker = Brokerd::start(Options::default()).unwrap_or_else(|error| panic!("{error}"));
    let open = || Wire::open(broker.amqp_port()).unwrap();
    let (mut publisher, mut consumer, mut bystander) = (open(), open(), open());
    publisher.declare("q", false).unwrap();
    publisher.confirm_select(1).unwrap();
    set_watermark(&broker, broker.rss_now().unwrap() + ROOM_BYTES);

    // Messages that nobody takes, until there is no memory for more.
    let (mut sent, mut confirmed, mut reason) = (0_u64, 0_u64, None);
    let give_up = Instant::now() + PATIENCE;
    while reason.is_none() {
        assert!(Instant::now() < give_up, "{sent} messages do not set the alarm off");
        let batch: Vec<u8> = (0..500).flat_map(|_| publish(1, "q", false, BODY)).collect();
        publisher.send(&batch).unwrap();
        sent += 500;
        while confirmed < sent && reason.is_none() {
            match publisher.listen().unwrap() {
                Said::Ack(tag, _) => confirmed = tag,
                Said::Blocked(why) => reason = Some(why),
                Said::Unblocked => {}
                other => panic!("{other:?}"),
            }
        }
        // Near the watermark the alarm may be over again at once.
        while reason.is_some()
            && let Some(said) = publisher.listen_for(SILENCE).unwrap()
        {
            match said {
                Said::Ack(tag, _) => confirmed = tag,
                Said::Unblocked => reason = None,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(reason.as_deref(), Some("low on memory"));
    publisher.send(&publish(1, "q", false, BODY)).unwrap();
    sent += 1;
    assert_eq!(publisher.listen_for(SILENCE).unwrap(), None, "a held publish is answered");

    // Who has not published is not held, and whoever comes gets in.
    bystander.declare("other", false).unwrap();
    bystander.get("other").unwrap();
    let mut late = open();
    let mut taken = 0;
    consumer.prefetch(1, 100).unwrap();
    late.prefetch(1, 100).unwrap();
    consumer.consume(1, "q", false).unwrap();
    late.consume(1, "q", false).unwrap();
    let mut take = |consumer: &mut Wire| {
        while let Some(said) = consumer.listen_for(Duration::from_millis(20)).unwrap() {
            match said {
                Said::Delivery { tag, .. } => consumer.send(&ack(1, tag, false)).unwrap(),
                Said::Blocked(_) | Said::Unblocked => continue,
                other => panic!("{other:?}"),
            }
            taken += 1;
        }
    };
    let give_up = Instant::now() + PATIENCE;
    loop {
        take(&mut consumer);
        take(&mut late);
        match publisher.listen_for(Duration::from_millis(20)).unwrap() {
            Some(Said::Unblocked) => break,
            Some(Said::Ack(tag, _)) => confirmed = tag,
            Some(other) => panic!("{other:?}"),
            None => {}
        }
        assert!(Instant::now() < give_up, "still blocked with {} MiB in use", broker.rss_now().unwrap() >> 20);
    }
    // What was held goes its way, and nothing is missing.
    let give_up = Instant::now() + PATIENCE;
    while confirmed < sent {
        take(&mut consumer);
        take(&mut late);
        match publisher.listen_for(Duration::from_millis(20)).unwrap() {
            Some(Said::Ack(tag, _)) => confirmed = tag,
            Some(Said::Blocked(_) | Said::Unblocked) | None => {}
            Some(other) => panic!("{other:?}"),
        }
        assert!(Instant::now() < give_up, "{confirmed} of {sent} are confirmed");
    }
    thread::sleep(SILENCE);
    take(&mut consumer);
    take(&mut late);
    assert_eq!(taken, sent);
}

#[test]
fn the_memory_there_is_is_that_of_the_control_group() {
    let group = match ControlGroup::with(Limit::Memory(256 << 20)) {
        Ok(group) => group,
        Err(error) => {
            return eprintln!("SKIPPED: {error}; see the tests of broker-server/src/alarm/memory.rs");
        }
    };
    // A twentieth of the group's memory is less than a broker takes, a twentieth of the machine's is more.
    let options = || Options::default().conf("vm_memory_high_watermark.relative = 0.05");
    let free = Brokerd::start(options()).unwrap_or_else(|error| panic!("{error}"));
    let directory = TempDir::new().unwrap();
    let program = directory.path().join("brokerd");
    let brokerd = fs::read_link(format!("/proc/{}/exe", free.pid())).unwrap();
    let script =
        format!("#!/bin/sh\necho $$ >'{}' && exec '{}' \"$@\"\n", group.processes().display(), brokerd.display());
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let broker = Brokerd::start(options().binary(&program)).unwrap_or_else(|error| panic!("{error}"));
    let log = broker.log_tail();
    assert!(log.contains("memory alarm set") && log.contains("watermark 12 MiB"), "{log}");
    let mut publisher = Wire::open(broker.amqp_port()).unwrap();
    publisher.send(&publish(1, "nowhere", false, BODY)).unwrap();
    assert_eq!(publisher.listen().unwrap(), Said::Blocked("low on memory".into()));
    assert!(!free.log_tail().contains("memory alarm set"), "{}", free.log_tail());
    drop(broker);
}
