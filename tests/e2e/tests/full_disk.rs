//! A disk that is full: publishers wait, nobody else does, nothing that was confirmed is lost, and what was refused is as if it had never been asked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use e2e::wire::{self, PATIENCE, Said, Wire, ack, publish, publish_to, short};
use e2e::{SmallDisk, has_own_mounts};
use harness::{Broker, Brokerd, Options};
use tempfile::TempDir;

/// Room for the journal's first files and a little more.
const DISK_BYTES: u64 = 128 << 20;
const BODY_BYTES: usize = 16 * 1024;
/// Publishes that wait for their confirms at the same time.
const WINDOW: u64 = 100;
/// After so long without a word nothing is going on any more.
const STALL: Duration = Duration::from_secs(3);
const AUTO_DELETE: u8 = 8;
const DURABLE: u8 = 2;
const PASSIVE: u8 = 1;

/// A broker on a disk of its own.
struct Node {
    broker: Brokerd,
    disk: SmallDisk,
    _directory: TempDir,
}

impl Node {
    fn start(conf: &str) -> Node {
        let directory = TempDir::new().unwrap();
        let disk = SmallDisk::mount(directory.path(), DISK_BYTES).unwrap();
        let options = Options::default().data_dir(directory.path().join("data")).conf(conf);
        let broker = Brokerd::start(options).unwrap_or_else(|error| panic!("{error}"));
        Node { broker, disk, _directory: directory }
    }

    fn open(&self) -> Wire {
        Wire::open(self.broker.amqp_port()).unwrap()
    }

    /// A publisher that has put a window of persistent messages into the queue `kept`, all of them confirmed.
    fn with_a_window_kept(&self) -> Wire {
        let mut publisher = self.open();
        publisher.declare("kept", true).unwrap();
        publisher.confirm_select(1).unwrap();
        for number in 1..=WINDOW {
            publisher.send(&publish(1, "kept", true, &body(number))).unwrap();
        }
        publisher.find(|said| matches!(said, Said::Ack(WINDOW, _))).unwrap();
        publisher
    }

    /// Why a queue of that name cannot be seen; `None` if it can.
    fn missing(&self, queue: &str) -> Option<String> {
        self.open().declare_with(queue, PASSIVE, b"").err().map(|error| error.to_string())
    }

    /// Fills the disk, and what the catalog has reserved of it.
    fn fill_with_catalog(&self) {
        self.disk.fill().unwrap();
        self.open().declare("filler", false).unwrap();
        for size in [30_000, 1_000, 10] {
            for number in 0.. {
                let arguments = [short("x"), b"S".to_vec(), wire::long(&vec![b'x'; size])].concat();
                let key = format!("{size}/{number}");
                let fields = [&[0, 0][..], &short("durable"), &short("amq.direct"), &short(&key), &[0]].concat();
                let bind = self.open().call(1, (50, 20), &[fields, wire::long(&arguments)].concat());
                if let Err(refused) = bind {
                    assert!(refused.to_string().contains("the disk is full"), "{refused}");
                    break;
                }
            }
        }
    }
}

/// Publishes persistent messages to the queue `kept`, counted from `from` on, until their confirms have stayed away for a while. Returns how many were
/// sent and how many of those are confirmed.
fn publish_until_it_stalls(wire: &mut Wire, from: u64) -> (u64, u64) {
    let (mut sent, mut confirmed) = (from, from);
    loop {
        wire.send(&publish(1, "kept", true, &body(sent + 1))).unwrap();
        sent += 1;
        while sent - confirmed >= WINDOW {
            match wire.listen_for(STALL).unwrap() {
                Some(Said::Ack(tag, _)) => confirmed = from + tag,
                Some(other) => panic!("{other:?}"),
                None => return (sent, confirmed),
            }
        }
    }
}

fn body(number: u64) -> Vec<u8> {
    let mut body = vec![number as u8; BODY_BYTES];
    body[..8].copy_from_slice(&number.to_be_bytes());
    body
}

fn delete(wire: &mut Wire, queue: &str) -> std::io::Result<()> {
    wire.call(1, (50, 40), &[&[0, 0][..], &short(queue), &[0]].concat())
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < give_up, "{what} did not happen");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_queue_whose_deletion_is_refused_stays_as_it_was() {
    if !has_own_mounts("a_queue_whose_deletion_is_refused_stays_as_it_was").unwrap() {
        return;
    }
    let node = Node::start("disk_free_limit.absolute = 0");
    let queues: Vec<String> = (0..100).map(|number| format!("d{number}")).collect();
    let mut wire = node.open();
    wire.declare("durable", true).unwrap();
    queues.iter().for_each(|queue| wire.declare(queue, true).unwrap());
    node.fill_with_catalog();

    // What is left of the log's room takes a few deletions.
    let refused = queues.iter().find_map(|queue| delete(&mut wire, queue).err().map(|error| (queue, error)));
    let (queue, error) = refused.expect("a full disk took every deletion");
    assert!(error.to_string().contains("INTERNAL_ERROR - the disk is full"), "{error}");

    let mut wire = node.open();
    wire.confirm_select(1).unwrap();
    wire.send(&publish_to(1, "", queue, false, true, b"kept")).unwrap();
    assert_eq!(wire.listen().unwrap(), Said::Ack(1, false), "the queue takes no messages any more");
    assert_eq!(wire.get(queue).unwrap(), Some(b"kept".to_vec()));
    wire.consume(1, queue, true).unwrap();

    node.disk.make_room().unwrap();
    delete(&mut wire, queue).unwrap();
    assert!(node.missing(queue).unwrap().contains("NOT_FOUND"));
}

#[test]
fn a_queue_that_goes_by_itself_goes_when_there_is_room() {
    if !has_own_mounts("a_queue_that_goes_by_itself_goes_when_there_is_room").unwrap() {
        return;
    }
    let mut node = Node::start("disk_free_limit.absolute = 0");
    let mut wire = node.open();
    wire.declare("durable", true).unwrap();
    let queues: Vec<String> = (0..100).map(|number| format!("a{number}")).collect();
    for queue in &queues {
        wire.declare_with(queue, DURABLE | AUTO_DELETE, b"").unwrap();
        wire.consume(1, queue, true).unwrap();
    }
    node.fill_with_catalog();

    for queue in &queues {
        wire.call(1, (60, 30), &[&short(queue)[..], &[0]].concat()).expect("the consumer is not cancelled");
    }
    assert!(queues.iter().all(|queue| node.missing(queue).is_some()), "a queue outlives its last consumer");
    let listed = |node: &Node| node.broker.control().run(&["list_queues", "name"]).unwrap().text;
    assert!(listed(&node).contains("a99"), "the disk was not full");

    node.disk.make_room().unwrap();
    wait_until("the deletion", || !listed(&node).contains("a99"));
    node.broker.kill_9().unwrap();
    node.broker.restart().unwrap();
    assert!(queues.iter().all(|queue| node.missing(queue).is_some()), "a deleted queue is back");
    assert!(node.missing("durable").is_none());
}

/// Takes everything out of `kept` and checks that all is there that was confirmed and not acked, each once and in order.
fn check_kept(node: &Node, acked: u64, confirmed: u64, sent: u64) {
    let mut wire = node.open();
    let mut last = acked;
    while let Some(found) = wire.get("kept").unwrap() {
        let number = u64::from_be_bytes(*found.first_chunk().unwrap());
        assert!(found == body(number), "not what was published");
        assert!(number == last + 1, "{number} comes after {last}");
        last = number;
    }
    assert!((confirmed..=sent).contains(&last), "{last} is the last one of {confirmed} confirmed and {sent} sent");
}

#[test]
fn a_journal_without_room_holds_persistent_publishers_and_nobody_else() {
    if !has_own_mounts("a_journal_without_room_holds_persistent_publishers_and_nobody_else").unwrap() {
        return;
    }
    // No alarm: it is the write that meets the full disk.
    let mut node = Node::start("disk_free_limit.absolute = 0");
    let mut publisher = node.open();
    publisher.declare("kept", true).unwrap();
    publisher.confirm_select(1).unwrap();
    publisher.send(&publish(1, "kept", true, &body(1))).unwrap();
    assert_eq!(publisher.listen().unwrap(), Said::Ack(1, false));
    node.disk.fill().unwrap();
    // The window is smaller than what may wait to be stored: nobody is held back for it.
    let mut publisher = node.open();
    publisher.confirm_select(1).unwrap();
    let (sent, confirmed) = publish_until_it_stalls(&mut publisher, 1);
    assert!(confirmed < sent, "all is stored on a full disk");
    assert!(node.broker.log_tail().contains("the disk is full"), "{}", node.broker.log_tail());

    // Others: transient messages, and a consumer of what is stored already.
    let mut other = node.open();
    other.confirm_select(1).unwrap();
    other.declare("transient", false).unwrap();
    for number in 1..=20 {
        other.send(&publish(1, "transient", false, b"through")).unwrap();
        assert_eq!(other.listen().unwrap(), Said::Ack(number, false));
        assert_eq!(other.get("transient").unwrap(), Some(b"through".to_vec()));
    }
    let acked = confirmed.min(50);
    let mut consumer = node.open();
    consumer.prefetch(1, 10).unwrap();
    consumer.consume(1, "kept", false).unwrap();
    for expected in 1..=acked {
        let Said::Delivery { tag, body: found, .. } = consumer.listen().unwrap() else { panic!("no delivery") };
        assert!(found == body(expected));
        consumer.send(&ack(1, tag, false)).unwrap();
    }
    consumer.call(1, (20, 40), &[0, 200, 0, 0, 0, 0, 0]).unwrap();

    // Room again: it goes on by itself.
    node.disk.make_room().unwrap();
    let mut last = confirmed;
    while last < sent {
        match publisher.listen().unwrap() {
            Said::Ack(tag, _) => last = 1 + tag,
            other => panic!("{other:?}"),
        }
    }
    node.broker.kill_9().unwrap();
    node.broker.restart().unwrap();
    check_kept(&node, acked, sent, sent);
}

fn a_backlog_on_a_full_disk_is_consumed(persistent: bool) {
    const BACKLOG: u64 = 3000;
    const MORE: u64 = 1200;
    let node = Node::start("disk_free_limit.absolute = 0");
    let mut publisher = node.open();
    publisher.declare("kept", true).unwrap();
    publisher.confirm_select(1).unwrap();
    for number in 1..=BACKLOG {
        publisher.send(&publish(1, "kept", persistent, &body(number))).unwrap();
    }
    let mut confirmed = 0;
    while confirmed < BACKLOG {
        let Said::Ack(tag, _) = publisher.listen().unwrap() else { panic!("not confirmed") };
        confirmed = tag;
    }
    node.disk.fill().unwrap();
    // They push others out of memory, for which there is no room.
    let mut second = node.open();
    second.confirm_select(1).unwrap();
    // It is held back when too much waits for the disk, and goes on when there is room.
    let mut sender = second.sender().unwrap();
    let sending = thread::spawn(move || {
        for number in BACKLOG + 1..=BACKLOG + MORE {
            sender.write_all(&publish(1, "kept", persistent, &body(number))).unwrap();
        }
    });
    wait_until("a full disk", || node.broker.log_tail().contains("the disk is full"));
    let mut consumer = node.open();
    consumer.prefetch(1, 100).unwrap();
    consumer.consume(1, "kept", false).unwrap();
    for expected in 1..=BACKLOG + MORE {
        let Said::Delivery { tag, body: found, .. } = consumer.listen().unwrap() else { panic!("no delivery") };
        assert!(found == body(expected), "not the message {expected}");
        consumer.send(&ack(1, tag, false)).unwrap();
    }
    sending.join().unwrap();
    // What was consumed left room behind, and nothing of it comes back.
    let mut confirmed = 0;
    while confirmed < MORE {
        let Said::Ack(tag, _) = second.listen().unwrap() else { panic!("not confirmed") };
        confirmed = tag;
    }
    second.send(&publish(1, "kept", true, &body(1))).unwrap();
    assert_eq!(second.listen().unwrap(), Said::Ack(MORE + 1, false));
}

#[test]
fn a_transient_backlog_is_consumed() {
    if has_own_mounts("a_transient_backlog_is_consumed").unwrap() {
        a_backlog_on_a_full_disk_is_consumed(false);
    }
}

#[test]
fn a_persistent_backlog_is_consumed() {
    if has_own_mounts("a_persistent_backlog_is_consumed").unwrap() {
        a_backlog_on_a_full_disk_is_consumed(true);
    }
}

#[test]
fn a_transient_backlog_that_cannot_leave_memory_holds_its_publisher() {
    if !has_own_mounts("a_transient_backlog_that_cannot_leave_memory_holds_its_publisher").unwrap() {
        return;
    }
    let node = Node::start("disk_free_limit.absolute = 0");
    let mut publisher = node.open();
    publisher.declare("kept", false).unwrap();
    node.disk.fill().unwrap();
    let before = node.broker.rss_now().unwrap();
    publisher.sender().unwrap().set_write_timeout(Some(STALL)).unwrap();
    let sent = (1..10_000).take_while(|&number| publisher.send(&publish(1, "kept", false, &body(number))).is_ok());
    let bytes = sent.count() * BODY_BYTES;
    assert!(bytes < 100 << 20, "{} MiB were taken that neither memory nor disk is meant for", bytes >> 20);
    let growth = node.broker.rss_now().unwrap().saturating_sub(before);
    assert!(growth < 80 << 20, "memory grew by {} MiB", growth >> 20);
    // Others, whose queues do not grow, go on.
    let mut other = node.open();
    other.declare("passing", false).unwrap();
    for _ in 0..20 {
        other.send(&publish(1, "passing", false, b"through")).unwrap();
        assert_eq!(other.get("passing").unwrap(), Some(b"through".to_vec()));
    }
}

/// It ends like that while publishes wait for the disk, and is started again when there is room.
fn ended_on_a_full_disk(end: impl FnOnce(&mut Brokerd)) {
    let mut node = Node::start("disk_free_limit.absolute = 0");
    let mut publisher = node.open();
    publisher.declare("kept", true).unwrap();
    node.disk.fill().unwrap();
    publisher.confirm_select(1).unwrap();
    let (sent, confirmed) = publish_until_it_stalls(&mut publisher, 0);
    assert!(confirmed < sent, "all is stored on a full disk");
    end(&mut node.broker);
    node.disk.make_room().unwrap();
    node.broker.restart().unwrap();
    check_kept(&node, 0, confirmed, sent);
}

#[test]
fn killed_with_a_full_disk_it_has_all_it_confirmed() {
    if has_own_mounts("killed_with_a_full_disk_it_has_all_it_confirmed").unwrap() {
        ended_on_a_full_disk(|broker| broker.kill_9().unwrap());
    }
}

#[test]
fn told_to_stop_with_a_full_disk_it_stops() {
    if has_own_mounts("told_to_stop_with_a_full_disk_it_stops").unwrap() {
        ended_on_a_full_disk(|broker| broker.terminate().unwrap());
    }
}

#[test]
fn a_start_on_a_full_disk_says_so_and_loses_nothing() {
    if !has_own_mounts("a_start_on_a_full_disk_says_so_and_loses_nothing").unwrap() {
        return;
    }
    let mut node = Node::start("disk_free_limit.absolute = 0");
    let _publisher = node.with_a_window_kept();
    node.broker.kill_9().unwrap();
    node.disk.fill().unwrap();
    let refused = node.broker.restart().expect_err("a start on a full disk").to_string();
    assert!(refused.contains("exit status: 74") && refused.contains("no space left"), "{refused}");
    node.disk.make_room().unwrap();
    node.broker.restart().unwrap();
    check_kept(&node, 0, WINDOW, WINDOW);
}

#[test]
fn the_disk_alarm_holds_publishers_until_there_is_room() {
    if !has_own_mounts("the_disk_alarm_holds_publishers_until_there_is_room").unwrap() {
        return;
    }
    let mut node = Node::start("disk_free_limit.absolute = 8MB");
    let mut publisher = node.with_a_window_kept();
    while publisher.listen_for(Duration::from_millis(100)).unwrap().is_some() {}

    node.disk.fill().unwrap();
    wait_until("the alarm", || node.broker.log_tail().contains("disk alarm set"));
    publisher.send(&publish(1, "kept", true, &body(WINDOW + 1))).unwrap();
    let said = publisher.listen().unwrap();
    assert!(matches!(&said, Said::Blocked(reason) if reason.contains("disk")), "{said:?}");
    assert_eq!(publisher.listen_for(Duration::from_secs(1)).unwrap(), None, "a held publish is answered");

    // Who comes now can log in and consume.
    let mut consumer = node.open();
    consumer.prefetch(1, 1).unwrap();
    consumer.consume(1, "kept", false).unwrap();
    for expected in 1..=10 {
        let delivery = consumer.find(|said| matches!(said, Said::Delivery { .. })).unwrap();
        let Said::Delivery { tag, body: found, .. } = delivery else { panic!("{delivery:?}") };
        assert!(found == body(expected));
        consumer.send(&ack(1, tag, false)).unwrap();
    }

    node.disk.make_room().unwrap();
    assert_eq!(publisher.listen().unwrap(), Said::Unblocked);
    assert_eq!(publisher.listen().unwrap(), Said::Ack(WINDOW + 1, false));
    // Its acks are carried out before it goes.
    consumer.call(1, (20, 40), &[0, 200, 0, 0, 0, 0, 0]).unwrap();
    node.broker.terminate().unwrap();
    node.broker.restart().unwrap();
    check_kept(&node, 10, WINDOW + 1, WINDOW + 1);
}
