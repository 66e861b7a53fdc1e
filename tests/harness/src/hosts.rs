//! Hosts in network namespaces, between which the network can be cut: each way of each pair by itself.
//!
//! The test runs itself again in a network and mount namespace of its own, where it is one host among the others. The kernel takes all of them
//! away with the last process in them, whatever becomes of the test. Needs root, `unshare` and `ip` with bridges and pairs of virtual interfaces.
//!
//! A way from A to B is cut by giving A a wrong hardware address for B: what A sends is lost without a word, as by a switch that has failed.
//! Nothing else in the kernel has to be there for that (no packet filter, no traffic control).

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::Command;
use std::{env, fs};

use rustix::process::geteuid;

use crate::Error;

/// Set in the process that has the network.
const INSIDE: &str = "HARNESS_OWN_NETWORK";
/// No host has it.
const NOBODY: &str = "02:00:00:00:ff:ff";
/// The host number of the test itself.
const TEST: u8 = 254;

/// Runs the named test again where it may make hosts. `true` in the process in which the test is to go on; in the other one it is over when this
/// returns. On a machine where that cannot be, it says so and gives `false`: the test is skipped.
///
/// # Errors
/// The test has failed there.
pub fn has_own_network(test: &str) -> Result<bool, Error> {
    if env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    if let Some(why) = obstacle() {
        // Not by a macro: what those print of a test that passes is not shown.
        let words = format!("\nSKIPPED: {test} needs a network of its own: {why}\n");
        io::stderr().write_all(words.as_bytes()).map_err(|error| Error::io("saying that a test is skipped", error))?;
        return Ok(false);
    }
    let program = env::current_exe().map_err(|error| Error::io("finding the running program", error))?;
    let status = unshare()
        .arg(program)
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(INSIDE, "1")
        .status()
        .map_err(|error| Error::io("starting the test in its own network", error))?;
    if status.success() {
        Ok(false)
    } else {
        Err(Error::io(format!("{test} in its own network"), io::Error::other(status.to_string())))
    }
}

fn unshare() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--propagation", "private", "--"]);
    command
}

/// What is missing for hosts, if anything.
fn obstacle() -> Option<String> {
    if !geteuid().is_root() {
        return Some("only root may make network namespaces".into());
    }
    let script = "ip link add brx type bridge && ip link add va type veth peer name vb";
    match unshare().args(["sh", "-c", script]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// Hosts 1 to `count`, and the test as one more.
#[derive(Debug)]
pub struct Hosts {
    count: u8,
}

impl Hosts {
    /// Makes them. Only where [`has_own_network`] has said so.
    ///
    /// # Errors
    /// This process has no network of its own, or a command has failed.
    pub fn make(count: u8) -> Result<Hosts, Error> {
        if env::var_os(INSIDE).is_none() {
            return Err(Error::Mistake("hosts are made in a network of the test's own only".into()));
        }
        run("mkdir", &["-p", "/run/netns"])?;
        run("mount", &["-t", "tmpfs", "tmpfs", "/run/netns"])?;
        ip("link set lo up")?;
        ip(&format!("link add net address {} type bridge", hardware(TEST)))?;
        ip(&format!("addr add {}/24 dev net", address(TEST)))?;
        ip("link set net up")?;
        for host in 1..=count {
            ip(&format!("netns add h{host}"))?;
            let hardware = hardware(host);
            ip(&format!("link add v{host} type veth peer name eth0 address {hardware} netns h{host}"))?;
            ip(&format!("link set v{host} master net up"))?;
            ip(&format!("-n h{host} addr add {}/24 dev eth0", address(host)))?;
            ip(&format!("-n h{host} link set lo up"))?;
            ip(&format!("-n h{host} link set eth0 up"))?;
        }
        let hosts = Hosts { count };
        hosts.heal_all()?;
        Ok(hosts)
    }

    /// A host's address.
    #[must_use]
    pub fn address(&self, host: u8) -> Ipv4Addr {
        address(host)
    }

    /// The address at which the hosts reach the test.
    #[must_use]
    pub fn own_address(&self) -> Ipv4Addr {
        address(TEST)
    }

    /// Programs that are started from now on ask the name server at an address, and no other.
    ///
    /// # Errors
    /// The file that says so cannot be put in its place.
    pub fn ask_for_names_at(&self, server: Ipv4Addr) -> Result<(), Error> {
        // On the file system of this test's own; see `make`.
        let file = "/run/netns/resolv.conf";
        let content = format!("nameserver {server}\noptions timeout:1 attempts:2\n");
        fs::write(file, content).map_err(|error| Error::io(format!("writing {file}"), error))?;
        run("mount", &["--bind", file, "/etc/resolv.conf"])
    }

    /// What a command begins with that is to run on a host.
    pub(crate) fn prefix(host: u8) -> Vec<String> {
        vec!["nsenter".into(), format!("--net=/run/netns/h{host}"), "--".into()]
    }

    /// What one host sends to another is lost from now on.
    ///
    /// # Errors
    /// The command has failed.
    pub fn cut_one_way(&self, from: u8, to: u8) -> Result<(), Error> {
        neighbour(from, to, NOBODY)
    }

    /// Both ways.
    ///
    /// # Errors
    /// The command has failed.
    pub fn cut(&self, one: u8, other: u8) -> Result<(), Error> {
        self.cut_one_way(one, other)?;
        self.cut_one_way(other, one)
    }

    /// A host is cut off from all others; the test still reaches it.
    ///
    /// # Errors
    /// The command has failed.
    pub fn isolate(&self, host: u8) -> Result<(), Error> {
        (1..=self.count).filter(|other| *other != host).try_for_each(|other| self.cut(host, other))
    }

    /// Both ways work again.
    ///
    /// # Errors
    /// The command has failed.
    pub fn heal(&self, one: u8, other: u8) -> Result<(), Error> {
        neighbour(one, other, &hardware(other))?;
        neighbour(other, one, &hardware(one))
    }

    /// All ways work again.
    ///
    /// # Errors
    /// The command has failed.
    pub fn heal_all(&self) -> Result<(), Error> {
        for one in 1..=self.count {
            (one + 1..=self.count).try_for_each(|other| self.heal(one, other))?;
        }
        Ok(())
    }
}

fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, host)
}

fn hardware(host: u8) -> String {
    format!("02:00:00:00:00:{host:02x}")
}

fn neighbour(of: u8, host: u8, hardware: &str) -> Result<(), Error> {
    ip(&format!("-n h{of} neigh replace {} lladdr {hardware} dev eth0 nud permanent", address(host)))
}

fn ip(words: &str) -> Result<(), Error> {
    run("ip", &words.split(' ').collect::<Vec<_>>())
}

fn run(program: &str, arguments: &[&str]) -> Result<(), Error> {
    let doing = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).output().map_err(|error| Error::io(doing(), error))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::io(doing(), io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())))
}
