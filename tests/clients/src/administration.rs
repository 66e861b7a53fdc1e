//! What suites do to a broker beside the protocol: the one place that knows how each broker is administered.

use std::env;
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
            // The harness lets RabbitMQ listen on 127.0.0.1 alone; brokerd listens on all addresses by itself.
            let broker = RabbitMq::start_with(options.conf("listeners.tcp.ipv6 = ::1:5672"))?;
            let rabbitmqctl = Some(rabbitmqs_own(&broker, directory)?);
            Ok(Administered { broker: Box::new(broker), rabbitmqctl })
        }
        Subject::Brokerd => {
            let broker = Brokerd::start(options)?;
            let rabbitmqctl = brokerctl().map(|program| spoken_by(&program, &broker, directory)).transpose()?;
            Ok(Administered { broker: Box::new(broker), rabbitmqctl })
        }
    }
}

/// A script that calls Debian's rabbitmqctl with what it needs to find this node.
fn rabbitmqs_own(broker: &RabbitMq, directory: &Path) -> Result<PathBuf, Error> {
    let exports = broker.ctl_environment().iter().map(|(name, value)| format!("export {name}='{value}'\n"));
    script(directory, &format!("{}exec /usr/lib/rabbitmq/bin/rabbitmqctl \"$@\"", exports.collect::<String>()))
}

/// A script that speaks as rabbitmqctl to this brokerd.
fn spoken_by(brokerctl: &Path, broker: &Brokerd, directory: &Path) -> Result<PathBuf, Error> {
    let (brokerctl, data) = (brokerctl.display(), broker.data_dir().display());
    script(directory, &format!("BROKERCTL_DATA_DIR='{data}' exec '{brokerctl}' compat rabbitmqctl \"$@\""))
}

/// brokerctl beside the brokerd under test: where BROKERD_BIN lies, else where this program does.
fn brokerctl() -> Option<PathBuf> {
    let brokerd = env::var_os("BROKERD_BIN").map(PathBuf::from);
    let program = brokerd.or_else(|| env::current_exe().ok())?.with_file_name("brokerctl");
    program.is_file().then_some(program)
}

fn script(directory: &Path, lines: &str) -> Result<PathBuf, Error> {
    let path = directory.join("rabbitmqctl");
    let written = fs::write(&path, format!("#!/bin/sh\n{lines}\n"));
    let written = written.and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)));
    written.map_err(Error::io(format!("writing {}", path.display())))?;
    Ok(path)
}
