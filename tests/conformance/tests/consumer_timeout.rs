//! Deliveries that are held too long, with a timeout short enough to wait for. RabbitMQ 3.10.8 with a `consumer_timeout` of 5 s and its
//! application variable `channel_tick_interval` at 1 s answered each of these the same, but for the time.
#![allow(clippy::unwrap_used, clippy::panic)]

use conformance::client::PATIENCE;
use conformance::play::{Target, play};
use conformance::script::{Needs, Scenario};
use harness::{Broker, Brokerd, Options};

const CLOSE: &str = "< a1 channel.close reply_code=406 reply_text=\"PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout \
                     value used: 2000 ms. This timeout value can be configured, see consumers doc guide to learn more\" class_id=0 method_id=0";

/// Name, steps, and whether the channel is closed in the end.
const SCENARIOS: &[(&str, &[&str], bool)] = &[
    (
        "of a consumer",
        &["a1 basic.consume queue=t1 consumer_tag=c", "a1 basic.publish routing_key=t1 body=m", "wait a"],
        true,
    ),
    ("of a get", &["a1 basic.publish routing_key=t2 body=m", "sleep 100", "a1 basic.get queue=t2"], true),
    (
        "the oldest counts",
        &[
            "a1 basic.consume queue=t3 consumer_tag=c",
            "a1 basic.publish routing_key=t3 body=m",
            "wait a",
            "sleep 1000",
            "a1 basic.publish routing_key=t3 body=m",
            "wait a",
            "a1 basic.ack delivery_tag=2",
        ],
        true,
    ),
    (
        "not if settled in time",
        &[
            "a1 basic.consume queue=t4 consumer_tag=c",
            "a1 basic.publish routing_key=t4 body=m",
            "wait a",
            "sleep 1200",
            "a1 basic.publish routing_key=t4 body=m",
            "wait a",
            "a1 basic.ack delivery_tag=1",
            "sleep 1200",
            "a1 basic.ack delivery_tag=2",
        ],
        false,
    ),
    (
        "not without acknowledgements",
        &["a1 basic.consume queue=t5 consumer_tag=c no_ack=true", "a1 basic.publish routing_key=t5 body=m", "wait a"],
        false,
    ),
    (
        "not if settled in an open transaction",
        &[
            "a1 basic.publish routing_key=t6 body=m",
            "a1 tx.select",
            "sleep 100",
            "a1 basic.get queue=t6",
            "a1 basic.ack delivery_tag=1",
        ],
        false,
    ),
    (
        "once that is rolled back",
        &[
            "a1 basic.publish routing_key=t7 body=m",
            "a1 tx.select",
            "sleep 100",
            "a1 basic.get queue=t7",
            "a1 basic.ack delivery_tag=1",
            "sleep 3000",
            "a1 tx.rollback",
        ],
        true,
    ),
];

#[test]
fn a_channel_that_holds_a_delivery_for_too_long_is_closed() {
    let conf = "consumer_timeout = 2000\nbroker.channel_tick_interval = 500";
    let broker = Brokerd::start(Options::default().conf(conf)).unwrap_or_else(|error| panic!("{error}"));
    let port = broker.amqp_port();
    std::thread::scope(|scope| {
        for (at, (name, steps, closed)) in SCENARIOS.iter().enumerate() {
            scope.spawn(move || {
                let declare = format!("a1 queue.declare queue=t{}", at + 1);
                let steps = ["open a", &declare].into_iter().chain(steps.iter().copied()).chain(["quiet a 4000"]);
                let steps = steps.map(str::to_owned).collect();
                let scenario = Scenario { name: (*name).to_owned(), needs: Needs::Nothing, steps };
                let transcript = play::<Brokerd>(
                    &scenario,
                    &mut Target { ports: vec![port], broker: None, control: None, patience: PATIENCE, stop_at: None },
                )
                .unwrap();
                assert_eq!(transcript.iter().any(|line| line == CLOSE), *closed, "{name}: {transcript:#?}");
                let closes = transcript.iter().filter(|line| line.contains(".close ")).count();
                assert_eq!(closes, usize::from(*closed), "{name}: {transcript:#?}");
            });
        }
    });
}
