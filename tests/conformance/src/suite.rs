//! Plays many scenarios against one broker.

use std::thread;
use std::time::{Duration, Instant};

use harness::{Broker, Brokerd, Cluster, Options, Plan, RabbitMq};

use crate::client::PATIENCE;
use crate::play::{Target, play};
use crate::recorded::{self, Whose};
use crate::script::{Needs, Scenario};
use crate::{Error, accepted, awaited};

/// The configuration of both brokers: small enough limits that a scenario can reach them.
const CONFIGURATION: &str = "max_message_size = 16777216";

/// The exchange types that RabbitMQ has in plugins.
const PLUGINS: [&str; 3] =
    ["rabbitmq_consistent_hash_exchange", "rabbitmq_random_exchange", "rabbitmq_recent_history_exchange"];

/// How long an answer may take that is not there yet: most awaited scenarios wait for it in vain.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);

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

/// What was played and is not as it should be: the name, and what differs.
pub fn wrong(played: &[Played]) -> Result<Vec<String>, Error> {
    let accepted = accepted::all()?;
    let mut wrong = Vec::new();
    for played in played {
        let accepted = accepted.iter().any(|(name, _)| *name == played.name);
        // Where a difference is accepted, the answer is held to what was accepted, not let go.
        let whose = if accepted { Whose::Ours } else { Whose::RabbitMqs };
        let words = match (&played.transcript, recorded::load(whose, &played.name)) {
            (Ok(got), Ok(expected)) => recorded::difference(&expected, got),
            (Err(error), _) => format!("  {error}\n"),
            (_, Err(error)) => format!("  {error}\n"),
        };
        if !words.is_empty() {
            wrong.push(format!("{}\n{words}", played.name));
        }
    }
    Ok(wrong)
}

/// A RabbitMQ configured for the scenarios.
pub fn rabbitmq() -> Result<RabbitMq, Error> {
    let options = PLUGINS.iter().fold(Options::default().conf(CONFIGURATION), |options, name| options.plugin(name));
    Ok(RabbitMq::start_with(options)?)
}

/// A brokerd configured for the scenarios.
pub fn brokerd() -> Result<Brokerd, Error> {
    Ok(Brokerd::start(Options::default().conf(CONFIGURATION))?)
}

/// Three nodes, configured for the scenarios.
pub fn cluster(conf: &str) -> Result<Cluster, Error> {
    Ok(Cluster::start(Plan::nodes(3).conf(CONFIGURATION).conf(conf))?)
}

/// Plays the scenarios against a broker of ours to restart: the slow ones beside the others, then one by one those of an
/// administrator and those that restart it.
pub fn against(scenarios: &[Scenario], broker: &mut dyn Broker) -> Vec<Played> {
    let mut played = alone(scenarios, &[broker.amqp_port()]);
    for needs in [Needs::Operator, Needs::Restart] {
        for scenario in scenarios.iter().filter(|scenario| scenario.needs == needs) {
            played.push(timed(scenario, &mut whole(broker)));
        }
    }
    played
}

/// Plays the scenarios that need neither an administrator nor a restart against whatever listens on the ports.
pub fn alone(scenarios: &[Scenario], ports: &[u16]) -> Vec<Played> {
    let needing = |needs: Needs| scenarios.iter().filter(move |scenario| scenario.needs == needs);
    thread::scope(|scope| {
        let slow = needing(Needs::Time).zip(0..).map(|(scenario, place)| {
            scope.spawn(move || {
                thread::sleep(APART * place);
                timed_at(scenario, ports)
            })
        });
        let slow: Vec<_> = slow.collect();
        let mut played: Vec<Played> = needing(Needs::Nothing).map(|scenario| timed_at(scenario, ports)).collect();
        // A thread that panicked has already printed why; its scenario is then missing, which the caller notices.
        played.extend(slow.into_iter().filter_map(|thread| thread.join().ok()));
        played
    })
}

/// Plays the scenarios against a cluster: those that need nothing but time beside each other, then one by one those of an administrator, who
/// uses the second node. None that restarts a broker.
pub fn across(scenarios: &[Scenario], cluster: &Cluster) -> Result<Vec<Played>, Error> {
    let ports = cluster.numbers().map(|node| cluster.address(node).map(|address| address.port()));
    let ports = ports.collect::<Result<Vec<u16>, _>>()?;
    let mut played = alone(scenarios, &ports);
    for scenario in scenarios.iter().filter(|scenario| scenario.needs == Needs::Operator) {
        let (ports, control) = (ports.clone(), Some(cluster.control(2)?));
        let mut target = Target::<Brokerd> { ports, broker: None, control, patience: PATIENCE, stop_at: None };
        played.push(timed(scenario, &mut target));
    }
    Ok(played)
}

/// Plays the awaited scenarios one by one, each up to the first difference, and gives the lines of the list of which all
/// scenarios pass.
pub fn awaited(scenarios: &[Scenario], broker: &mut dyn Broker) -> Vec<&'static str> {
    let awaited: Vec<&Scenario> = scenarios.iter().filter(|scenario| awaited::names(&scenario.name)).collect();
    let played: Vec<Played> = awaited
        .into_iter()
        .map(|scenario| {
            let stop_at = recorded::load(Whose::RabbitMqs, &scenario.name).ok();
            timed(scenario, &mut Target { patience: SHORT_PATIENCE, stop_at, ..whole(broker) })
        })
        .collect();
    awaited::done(&played)
}

/// The broker with all that a scenario may ask for.
fn whole<'a>(broker: &'a mut (dyn Broker + 'a)) -> Target<'a, dyn Broker + 'a> {
    let (ports, control) = (vec![broker.amqp_port()], Some(broker.control()));
    Target { ports, broker: Some(broker), control, patience: PATIENCE, stop_at: None }
}

fn timed_at(scenario: &Scenario, ports: &[u16]) -> Played {
    let mut target =
        Target::<Brokerd> { ports: ports.to_vec(), broker: None, control: None, patience: PATIENCE, stop_at: None };
    timed(scenario, &mut target)
}

fn timed<B: Broker + ?Sized>(scenario: &Scenario, target: &mut Target<'_, B>) -> Played {
    let start = Instant::now();
    let transcript = play(scenario, target);
    Played { name: scenario.name.clone(), transcript, took: start.elapsed() }
}
