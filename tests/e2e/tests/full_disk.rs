//! A disk that is full: publishers wait, nobody else does, nothing that was confirmed is lost, and what was refused is as if it had never been asked.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::thread;
use std::time::{Duration, Instant};

use e2e::wire::{self, PATIENCE, Said, Wire, publish_to, short};
use e2e::{SmallDisk, has_own_mounts};
use harness::{Broker, Brokerd, Options};
use tempfile::TempDir;

/// Room for the journal's first files and a little more.
const DISK_BYTES: u64 = 96 << 20;
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
