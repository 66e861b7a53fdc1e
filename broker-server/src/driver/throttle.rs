//! Slows down those who guess passwords.
//!
//! Refused logins are counted for the address they come from and for the user they are for. Each count leaks away evenly: [`WINDOW`] after the last
//! refusal nothing is left of as many as are free. Whoever has more is made to wait *before* the password is checked, so that hanging up early tells a
//! guesser nothing, and spares the login thread the work. A login that was found right before is not checked again and never waits, so those who guess
//! at a user's password, or share an address with its clients behind a load balancer, do not get in their way.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::admission::Origin;

/// So long it takes until the free refusals are free again.
const WINDOW: Duration = Duration::from_secs(60);
/// The first wait. Each further refusal doubles it.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// A wait is doubled so many times at most: 4 s, so that a right password still gets in within RabbitMQ's `handshake_timeout`.
const DOUBLINGS_MAX: u32 = 3;
/// Addresses and users that are remembered at the same time. With more, those with the fewest refusals are forgotten first.
const REMEMBERED_MAX: usize = 4096;
/// Passwords from one origin that may be with the login thread at the same time: others' logins wait behind no more than these.
const CHECKS_MAX: u32 = 4;

/// Who asks to be let in.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    origin: Origin,
    /// A keyed hash: names are as long as their sender likes.
    user: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Suspect {
    Origin(Origin),
    User(u64),
}

/// See the module's page.
#[derive(Debug)]
pub struct Throttle {
    /// Free refusals; none: nobody waits.
    free: Option<u32>,
    /// When nothing will be left of a suspect's count: each refusal puts this off by its share of the window.
    suspects: HashMap<Suspect, Instant>,
    /// Checks on the login thread, by origin; an origin without any has no entry.
    checks: HashMap<Origin, u32>,
    /// Hashes users with a key of this process.
    hasher: RandomState,
}

impl Throttle {
    /// `free` refusals within a minute cost nothing; with none, nobody waits.
    #[must_use]
    pub fn new(free: Option<u32>) -> Self {
        let free = free.map(|free| free.max(1));
        Self { free, suspects: HashMap::new(), checks: HashMap::new(), hasher: RandomState::new() }
    }

    /// Names who asks.
    #[must_use]
    pub fn asker(&self, address: IpAddr, user: &str) -> Asker {
        Asker { origin: address.into(), user: self.hasher.hash_one(user) }
    }

    /// How long this asker has to wait before the password is looked at; zero for all who did not err often.
    #[must_use]
    pub fn delay(&self, now: Instant, asker: Asker) -> Duration {
        let Some(free) = self.free else { return Duration::ZERO };
        let refusals = [Suspect::Origin(asker.origin), Suspect::User(asker.user)]
            .iter()
            .filter_map(|suspect| self.suspects.get(suspect))
            .map(|gone_at| div_ceil(gone_at.saturating_duration_since(now), share(free)))
            .max()
            .unwrap_or(0);
        match refusals.checked_sub(free) {
            Some(more) => FIRST_DELAY * (1 << more.min(DOUBLINGS_MAX)),
            None => Duration::ZERO,
        }
    }

    /// Begins a check, unless this origin has enough under way. Each begun one must be [ended](Throttle::ended).
    #[must_use]
    pub fn begin(&mut self, asker: Asker) -> bool {
        let checks = self.checks.entry(asker.origin).or_default();
        let begins = *checks < CHECKS_MAX;
        *checks += u32::from(begins);
        begins
    }

    /// A check has ended.
    pub fn ended(&mut self, asker: Asker) {
        if let Entry::Occupied(mut checks) = self.checks.entry(asker.origin) {
            *checks.get_mut() = checks.get().saturating_sub(1);
            if *checks.get() == 0 {
                checks.remove();
            }
        }
    }

    /// A login was refused.
    pub fn refused(&mut self, now: Instant, asker: Asker) {
        let Some(free) = self.free else { return };
        // More would only make the wait last after the guessing has ended.
        let most = now + share(free) * (free + DOUBLINGS_MAX + 1);
        for suspect in [Suspect::Origin(asker.origin), Suspect::User(asker.user)] {
            if !self.suspects.contains_key(&suspect) && self.suspects.len() >= REMEMBERED_MAX {
                self.forget_some(now);
            }
            let gone_at = self.suspects.entry(suspect).or_insert(now);
            *gone_at = ((*gone_at).max(now) + share(free)).min(most);
        }
    }

    /// Makes room: those of whose refusals nothing is left go, and if these are few, the quarter with the fewest. Many at a time, so that one refusal
    /// in a thousand goes through the table.
    fn forget_some(&mut self, now: Instant) {
        let mut times: Vec<Instant> = self.suspects.values().copied().collect();
        let (_, quarter, _) = times.select_nth_unstable(REMEMBERED_MAX / 4);
        let bound = now.max(*quarter);
        self.suspects.retain(|_, gone_at| *gone_at > bound);
    }
}

/// What one refusal adds to a count, as time.
fn share(free: u32) -> Duration {
    WINDOW / free.max(1)
}

fn div_ceil(time: Duration, by: Duration) -> u32 {
    u32::try_from(time.as_nanos().div_ceil(by.as_nanos().max(1))).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    fn delays(throttle: &mut Throttle, now: Instant, asker: Asker, attempts: usize) -> Vec<u128> {
        let attempt = |_| {
            let delay = throttle.delay(now, asker).as_millis();
            throttle.refused(now, asker);
            delay
        };
        (0..attempts).map(attempt).collect()
    }

    #[test]
    fn the_wait_grows_up_to_a_bound_and_ends_after_a_while() {
        let now = Instant::now();
        let mut throttle = Throttle::new(Some(5));
        let asker = throttle.asker(address(1), "ann");
        let waits = delays(&mut throttle, now, asker, 12);
        assert_eq!(waits, [0, 0, 0, 0, 0, 500, 1_000, 2_000, 4_000, 4_000, 4_000, 4_000]);
        assert_eq!(throttle.delay(now + WINDOW, asker), Duration::ZERO);
        assert_eq!(throttle.delay(now + WINDOW / 2, asker), Duration::from_secs(2));
    }

    #[test]
    fn an_address_or_a_user_is_enough_and_others_do_not_wait() {
        let now = Instant::now();
        let mut throttle = Throttle::new(Some(5));
        let guesser = throttle.asker(address(1), "ann");
        delays(&mut throttle, now, guesser, 6);
        for (from, user, waits) in [(1, "bob", true), (2, "ann", true), (2, "bob", false)] {
            let asker = throttle.asker(address(from), user);
            assert_eq!(throttle.delay(now, asker) > Duration::ZERO, waits, "{user} from {from}");
        }
    }

    #[test]
    fn five_a_minute_are_free_for_ever() {
        let start = Instant::now();
        let mut throttle = Throttle::new(Some(5));
        let asker = throttle.asker(address(1), "ann");
        for attempt in 0..100 {
            let now = start + WINDOW / 5 * attempt;
            assert_eq!(throttle.delay(now, asker), Duration::ZERO);
            throttle.refused(now, asker);
        }
    }

    #[test]
    fn without_a_number_nobody_waits() {
        let now = Instant::now();
        let mut throttle = Throttle::new(None);
        let asker = throttle.asker(address(1), "ann");
        assert_eq!(delays(&mut throttle, now, asker, 100), [0; 100]);
        assert!(throttle.suspects.is_empty());
    }

    #[test]
    fn few_are_remembered_and_the_worst_of_them_longest() {
        let now = Instant::now();
        let mut throttle = Throttle::new(Some(5));
        let worst = throttle.asker(address(0), "ann");
        delays(&mut throttle, now, worst, 9);
        for number in 1..10_000 {
            let asker = throttle.asker(address(number), &format!("user {number}"));
            throttle.refused(now, asker);
        }
        assert!(throttle.suspects.len() <= REMEMBERED_MAX);
        assert_eq!(throttle.delay(now, worst), Duration::from_secs(4));
        let later = now + 2 * WINDOW;
        for number in 0..3_000 {
            let asker = throttle.asker(address(number), &format!("user {number}"));
            throttle.refused(later, asker);
        }
        assert!(throttle.suspects.values().all(|gone_at| *gone_at > later), "the expired go when room is needed");
    }

    #[test]
    fn one_origin_has_few_checks_under_way() {
        let mut throttle = Throttle::new(Some(5));
        let (one, other) = (throttle.asker(address(1), "ann"), throttle.asker(address(2), "ann"));
        let begun = (0..10).filter(|_| throttle.begin(one)).count();
        assert_eq!(begun, CHECKS_MAX as usize);
        assert!(throttle.begin(other));
        throttle.ended(one);
        assert!(throttle.begin(one));
        for _ in 0..CHECKS_MAX {
            throttle.ended(one);
        }
        throttle.ended(other);
        assert!(throttle.checks.is_empty());
    }
}
