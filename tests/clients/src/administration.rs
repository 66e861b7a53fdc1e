//! What suites do to a broker beside the protocol: the one place that knows how each broker is administered.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use harness::{Broker, Brokerd, Options, RabbitMq};

use crate::error::Error;
use crate::subject::Subject;

/// A broker that runs, and the program that stands for `rabbitmqctl` in a suite.
pub struct Administered {
    /// The broker.
    pub broker: Box<dyn Broker>,
    /// A program that takes rabbitmqctl's arguments; none when the broker has no such program, and suites skip what needs it.
    pub rabbitmqctl: Option<PathBuf>,
}

/// Starts the broker; what it needs for its administration goes into the directory.
pub fn start(subject: Subject, options: Options, directory: &Path) -> Result<Administered, Error> {
    match subject {
        Subject::RabbitMq => {
            let broker = RabbitMq::start_with(options)?;
            let rabbitmqctl = Some(rabbitmqs_own(&broker, directory)?);
            Ok(Administered { broker: Box::new(broker), rabbitmqctl })
        }
        Subject::Brokerd => Ok(Administered { broker: Box::new(Brokerd::start(options)?), rabbitmqctl: None }),
    }
}

/// A script that calls Debian's rabbitmqctl with what it needs to find this node.
fn rabbitmqs_own(broker: &RabbitMq, directory: &Path) -> Result<PathBuf, Error> {
    let exports = broker.ctl_environment().iter().map(|(name, value)| format!("export {name}='{value}'\n"));
    let script = format!("#!/bin/sh\n{}exec /usr/lib/rabbitmq/bin/rabbitmqctl \"$@\"\n", exports.collect::<String>());
    let path = directory.join("rabbitmqctl");
    let written = fs::write(&path, script).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)));
    written.map_err(Error::io(format!("writing {}", path.display())))?;
    Ok(path)
}
