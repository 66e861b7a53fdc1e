//! Heartbeats without a clock reading per octet: a check every half interval looks at what moved since the last one.
//!
//! A half interval in which nothing was sent brings a heartbeat frame; four in a row in which nothing came end the connection.

use std::time::{Duration, Instant};

/// Checks without an octet from the peer after which it counts as gone: two intervals.
const SILENT_CHECKS_MAX: u8 = 4;

/// What a connection knows of its peer's pulse and its own.
#[derive(Debug, Default)]
pub(crate) struct Heartbeat {
    /// The agreed interval in seconds; 0 = none.
    interval_s: u16,
    heard: bool,
    silent_checks: u8,
    /// Octets that were ever put into the send buffer, at the last check.
    sent: u64,
    check_at: Option<Instant>,
}

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// Both sides moved, or it is not yet time.
    Fine,
    /// Nothing was sent: send a heartbeat.
    Due,
    /// Nothing came for two intervals.
    PeerGone,
}

impl Heartbeat {
    /// Starts checking; an interval of 0 never does.
    pub(crate) fn start(&mut self, now: Instant, interval_s: u16) {
        self.interval_s = interval_s;
        self.check_at = (interval_s > 0).then(|| now + self.half());
    }

    pub(crate) fn stop(&mut self) {
        self.check_at = None;
    }

    pub(crate) fn interval_s(&self) -> u16 {
        self.interval_s
    }

    /// Something came from the peer.
    pub(crate) fn heard(&mut self) {
        self.heard = true;
    }

    pub(crate) fn next_check(&self) -> Option<Instant> {
        self.check_at
    }

    /// `sent` is the count of octets ever put into the send buffer; `reading` whether the peer's octets are being read at all.
    pub(crate) fn check(&mut self, now: Instant, sent: u64, reading: bool) -> Beat {
        if self.check_at.is_none_or(|at| now < at) {
            return Beat::Fine;
        }
        self.check_at = Some(now + self.half());
        self.silent_checks = if std::mem::take(&mut self.heard) || !reading { 0 } else { self.silent_checks + 1 };
        if self.silent_checks >= SILENT_CHECKS_MAX {
            return Beat::PeerGone;
        }
        if std::mem::replace(&mut self.sent, sent) == sent { Beat::Due } else { Beat::Fine }
    }

    fn half(&self) -> Duration {
        Duration::from_millis(u64::from(self.interval_s) * 500)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn silence_brings_a_heartbeat_and_then_the_end() {
        let start = Instant::now();
        let mut heartbeat = Heartbeat::default();
        heartbeat.start(start, 10);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(heartbeat.check(at(4), 0, true), Beat::Fine);
        assert_eq!(heartbeat.check(at(5), 0, true), Beat::Due);
        heartbeat.heard();
        assert_eq!(heartbeat.check(at(10), 8, true), Beat::Fine);
        assert_eq!(heartbeat.check(at(15), 8, true), Beat::Due);
        assert_eq!(heartbeat.check(at(20), 16, true), Beat::Fine);
        assert_eq!(heartbeat.check(at(25), 16, false), Beat::Due);
        for seconds in [30, 35, 40] {
            assert_ne!(heartbeat.check(at(seconds), 16, true), Beat::PeerGone);
        }
        assert_eq!(heartbeat.check(at(45), 16, true), Beat::PeerGone);
    }
}
