//! Plays many scenarios against one broker.

use std::thread;
use std::time::{Duration, Instant};

use harness::{Broker, Brokerd, Options, RabbitMq};

use crate::Error;
use crate::play::{Target, play};
use crate::script::{Needs, Scenario};

/// The configuration of both brokers: small enough limits that a scenario can reach them.
const CONFIGURATION: &str = "max_message_size = 16777216";

/// Between the starts of slow scenarios: logins cost a broker much, and many at once would hold each other up.
const APART: Duration = Duration::from_millis(400);

/// What came of a scenario.
#[derive(Debug)]
pub struct Played {
    /// The scenario's name.
    pub name: String,
    /// Its transcript, or why there is none.
    pub transcript: Result<Vec<String>, Error>,
    /// How long it took.
    pub took: Duration,
}

/// A RabbitMQ configured for the scenarios.
pub fn rabbitmq() -> Result<RabbitMq, Error> {
    Ok(RabbitMq::start_with(Options::default().conf(CONFIGURATION))?)
}

/// A brokerd configured for the scenarios.
pub fn brokerd() -> Result<Brokerd, Error> {
    Ok(Brokerd::start(Options::default().conf(CONFIGURATION))?)
}

/// Plays the scenarios against a broker of ours to restart: the slow ones beside the others, those that restart it last.
pub fn against(scenarios: &[Scenario], broker: &mut dyn Broker) -> Vec<Played> {
    let port = broker.amqp_port();
    let mut played = without_restarts(scenarios, port);
    for scenario in scenarios.iter().filter(|scenario| scenario.needs == Needs::Restart) {
        played.push(timed(scenario, &mut Target { port, broker: Some(broker) }));
    }
    played
}

/// Plays the scenarios that need no restart against whatever listens on the port.
pub fn without_restarts(scenarios: &[Scenario], port: u16) -> Vec<Played> {
    let needing = |needs: Needs| scenarios.iter().filter(move |scenario| scenario.needs == needs);
    thread::scope(|scope| {
        let slow = needing(Needs::Time).zip(0..).map(|(scenario, place)| {
            scope.spawn(move || {
                thread::sleep(APART * place);
                timed_at(scenario, port)
            })
        });
        let slow: Vec<_> = slow.collect();
        let mut played: Vec<Played> = needing(Needs::Nothing).map(|scenario| timed_at(scenario, port)).collect();
        // A thread that panicked has already printed why; its scenario is then missing, which the caller notices.
        played.extend(slow.into_iter().filter_map(|thread| thread.join().ok()));
        played
    })
}

fn timed_at(scenario: &Scenario, port: u16) -> Played {
    timed::<Brokerd>(scenario, &mut Target { port, broker: None })
}

fn timed<B: Broker + ?Sized>(scenario: &Scenario, target: &mut Target<'_, B>) -> Played {
    let start = Instant::now();
    let transcript = play(scenario, target);
    Played { name: scenario.name.clone(), transcript, took: start.elapsed() }
}
