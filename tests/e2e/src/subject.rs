//! Which broker the tests are run against.

use std::env;

use harness::{Broker, Brokerd, Error, Options, RabbitMq};

/// Starts a broker: RabbitMQ if the environment variable E2E_BROKER is `rabbitmq`, else brokerd. The first serves to prove
/// the tests themselves.
pub fn start_subject(options: Options) -> Result<Box<dyn Broker>, Error> {
    if env::var("E2E_BROKER").is_ok_and(|name| name == "rabbitmq") {
        Ok(Box::new(RabbitMq::start_with(options)?))
    } else {
        Ok(Box::new(Brokerd::start(options)?))
    }
}
