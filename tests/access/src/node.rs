//! A node of ours inside the test's process, whose catalog the test can change while clients are connected.

use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::Duration;

use broker_meta::Command;
use broker_server::admin::ShardHandle;
use broker_server::args::Args;
use broker_server::config::{Environment, load};
use broker_server::driver::events::Event;
use broker_server::driver::mailbox::Mailbox;
use broker_server::node;
use conformance::Error;
use conformance::client::Client;
use tempfile::TempDir;

/// How long a start or a change may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running node; it stops when dropped.
pub struct Node {
    port: u16,
    mailbox: Mailbox,
    thread: Option<JoinHandle<()>>,
    _directory: TempDir,
}

impl Node {
    /// Starts a node with these lines in its configuration, and waits until it serves.
    pub fn start(conf: &str) -> Result<Node, Error> {
        let words = |error: &dyn std::fmt::Display| Error::new(error.to_string());
        let directory = TempDir::with_prefix("access-").map_err(|error| words(&error))?;
        let port = harness::free_port()?;
        let path = directory.path().join("brokerd.conf");
        std::fs::write(&path, format!("listeners.tcp.default = 127.0.0.1:{port}\n{conf}\n"))
            .map_err(|error| words(&error))?;
        let arguments = [
            "brokerd".into(),
            "--config".into(),
            path.into_os_string(),
            "--data-dir".into(),
            directory.path().join("data").into_os_string(),
        ];
        let args = Args::read(arguments).map_err(|error| words(&error))?;
        let loaded =
            load(&args, &Environment::default()).map_err(|errors| Error::new(format!("configuration: {errors:?}")))?;
        let (reachable, reached) = channel();
        let thread = std::thread::spawn(move || {
            let told = |mailbox| {
                // The test that would hear it has given up.
                let _ = reachable.send(mailbox);
            };
            if let Err(failure) = node::run_with(&loaded.config, || None, told) {
                eprintln!("the node failed: {failure:?}");
            }
        });
        let mailbox = reached.recv_timeout(PATIENCE).map_err(|_| Error::new("the node did not start"))?;
        let node = Node { port, mailbox, thread: Some(thread), _directory: directory };
        Client::connect(port)?;
        Ok(node)
    }

    /// The port on 127.0.0.1 that speaks AMQP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Changes the catalog as an operator does, and waits until that is carried out. Says why, if it is refused.
    pub fn apply(&self, command: Command) -> Option<String> {
        match ShardHandle::new(self.mailbox.clone(), broker_server::node::ALONE).propose_blocking(vec![command]) {
            Ok(outcomes) => outcomes.into_iter().find_map(Result::err).map(|refusal| refusal.to_string()),
            Err(problem) => Some(problem),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.mailbox.send(Event::Shutdown);
        if let Some(thread) = self.thread.take() {
            // It has said why on standard error.
            let _ = thread.join();
        }
    }
}
