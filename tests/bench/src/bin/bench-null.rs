//! The null broker as a process: `bench-null [--port PORT] [--fsync FILE]`. It prints the port it listens on.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use bench::null::broker::NullBroker;
use clap::Parser;

/// Frames and forwards AMQP and does nothing else.
#[derive(Debug, Parser)]
struct Options {
    /// The port on 127.0.0.1; 0 takes a free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Sync persistent messages to this file before they are confirmed.
    #[arg(long)]
    fsync: Option<PathBuf>,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let mut broker = NullBroker::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, options.port)), options.fsync.as_deref())?;
    println!("{}", broker.address()?.port());
    broker.run()
}
