//! Free TCP ports for brokers.

use std::net::{Ipv4Addr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Error;

/// Ports below the kernel's ephemeral range (32768 and up), so that no outgoing connection can sit on a broker's port
/// while the broker restarts.
const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;

/// Steps that visit ports far apart: prime, so that every port comes up once before one repeats.
const STRIDE: u32 = 7_919;

static TAKEN: AtomicU32 = AtomicU32::new(0);

/// A TCP port on which nothing listens now, below the ephemeral range. Two calls in one process never give the same one;
/// in different processes a clash is unlikely but not excluded.
pub fn free_port() -> Result<u16, Error> {
    let start = seed();
    for _ in 0..COUNT {
        let step = TAKEN.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + step * STRIDE % COUNT) % COUNT;
        let Ok(port) = u16::try_from(port) else { continue };
        if TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::NoFreePort)
}

/// Where this process begins to look: fixed for the process, different between processes.
fn seed() -> u32 {
    static SEED: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *SEED.get_or_init(|| {
        let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        (nanoseconds / 1_000).wrapping_add(process::id().wrapping_mul(2_654_435_761)) % COUNT
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn ports_differ_and_are_below_the_ephemeral_range() {
        let first = free_port().unwrap();
        let second = free_port().unwrap();
        assert_ne!(first, second);
        assert!(first < 32_768 && second < 32_768);
    }
}
