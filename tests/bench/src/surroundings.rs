//! Where and when something is measured: what figures depend on besides the brokers.

use std::fs;
use std::process::Command;

/// The machine in a line.
pub fn machine() -> String {
    let first = |path: &str, key: &str| -> String {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map(|rest| rest.trim_start_matches([' ', '\t', ':']).trim().to_owned()).unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = first("/proc/meminfo", "MemTotal");
    format!(
        "{cores} cores {}, {memory} of memory, Linux {}, loopback, TCP congestion control {}; brokers and generator on the same cores",
        first("/proc/cpuinfo", "model name"),
        output_of("uname", &["-r"]),
        // One that paces what it sends, as bbr does, sets a timer for each segment.
        first("/proc/sys/net/ipv4/tcp_congestion_control", "")
    )
}

/// Now, and the commit that is checked out.
pub fn when() -> String {
    let commit = output_of("git", &["describe", "--always", "--dirty"]);
    format!("{}, commit {commit}", output_of("date", &["-u", "+%Y-%m-%d %H:%M UTC"]))
}

/// How busy the machine is: others' work is in every figure.
pub fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

fn output_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(|_| "unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
