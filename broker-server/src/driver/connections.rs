//! Logins, and opening a vhost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_amqp::{Exception, Input, Login, Output};
use broker_core::name::{UserName, VhostName};

use super::login::LoginResult;
use super::requests::exception;
use super::shard::Shard;
use super::throttle::Asker;

/// Passwords found right are remembered, by a keyed hash, for as long as the users stay the same: so many at most.
const REMEMBERED_MAX: usize = 4096;

/// While enough passwords from its address are being checked, a login is looked at again after this time.
const CHECK_PAUSE: Duration = Duration::from_millis(50);

/// A login on its way to being checked.
pub struct LoginAttempt {
    login: Login,
    asker: Asker,
    /// It has waited for what was refused before it, or need not.
    waited: bool,
    /// Not to be looked at before.
    pub(super) not_before: Instant,
}

impl Shard {
    /// Checks who a client is: at once if the same was found right before, else on the login thread.
    pub(super) fn check_login(&mut self, place: usize, login: Login, more: &mut Vec<Output>) {
        let Some(client) = self.clients.get(place) else { return };
        let asker = self.throttle.asker(client.peer.ip(), &login.user);
        self.attempt_login(place, LoginAttempt { login, asker, waited: false, not_before: self.now }, more);
    }

    fn attempt_login(&mut self, place: usize, mut attempt: LoginAttempt, more: &mut Vec<Output>) {
        let Some(client) = self.clients.get_mut(place) else { return };
        let Login { user, password, .. } = &attempt.login;
        let loopback_only = self.parts.loopback_users.iter().any(|only| **only == **user);
        let peer_is_loopback = client.peer.ip().to_canonical().is_loopback();
        let login = self.parts.access.login(user, password, loopback_only, peer_is_loopback);
        if login.cache_key(&self.login_key).is_some_and(|key| self.verified.contains(&key)) {
            self.logged_in(place, user, more);
            return;
        }
        let asker = attempt.asker;
        let delay = self.throttle.delay(self.now, asker);
        if !std::mem::replace(&mut attempt.waited, true) && !delay.is_zero() {
            tracing::debug!(peer = %client.peer, user = &**user, ?delay, "login delayed after refused ones");
            self.hold_login(place, attempt, delay);
        } else if !self.throttle.begin(asker) {
            self.hold_login(place, attempt, CHECK_PAUSE);
        } else if !self.parts.login.check(client.number, asker, login) {
            self.throttle.ended(asker);
            tracing::warn!(peer = %client.peer, user = &**user, "login refused: too many logins wait");
            client.amqp.step(self.now, Input::LoginRefused, more);
        }
    }

    /// The client keeps it, so that it goes with the client.
    fn hold_login(&mut self, place: usize, mut attempt: LoginAttempt, delay: Duration) {
        let Some(client) = self.clients.get_mut(place) else { return };
        attempt.not_before = self.now + delay;
        client.held_login = Some(Box::new(attempt));
        self.arm_timer(place);
    }

    /// Looks again at a login that was held, if it is time.
    pub(super) fn release_login(&mut self, place: usize) {
        let Some(client) = self.clients.get_mut(place) else { return };
        let Some(attempt) = client.held_login.take_if(|attempt| attempt.not_before <= self.now) else { return };
        let mut out = Vec::new();
        self.attempt_login(place, *attempt, &mut out);
        self.work_off(place, &[], &mut out);
    }

    /// The login thread has checked a password.
    pub(super) fn login_checked(&mut self, result: LoginResult) {
        let LoginResult { connection, asker, login, outcome } = result;
        self.throttle.ended(asker);
        if outcome.is_err() {
            // Also if the client did not stay to hear of it.
            self.throttle.refused(self.now, asker);
        }
        let Some(place) = self.place_of(connection) else { return };
        let mut out = Vec::new();
        match outcome {
            Ok(()) => {
                if self.verified.len() >= REMEMBERED_MAX {
                    self.verified.clear();
                }
                // The key depends on the stored hash: should the password have changed meanwhile, it will not be found.
                self.verified.extend(login.cache_key(&self.login_key));
                self.logged_in(place, login.user(), &mut out);
            }
            Err(refused) => {
                let next_waits_ms = self.throttle.delay(self.now, asker).as_millis() as u64;
                if let Some(client) = self.clients.get_mut(place) {
                    tracing::warn!(peer = %client.peer, user = login.user().as_str(), next_waits_ms, "login refused: {refused}");
                    client.amqp.step(self.now, Input::LoginRefused, &mut out);
                }
            }
        }
        self.work_off(place, &[], &mut out);
    }

    fn logged_in(&mut self, place: usize, user: &str, more: &mut Vec<Output>) {
        let impersonator = self.parts.access.user(user).is_some_and(|user| user.has_tag("impersonator"));
        if let Some(client) = self.clients.get_mut(place) {
            client.amqp.step(self.now, Input::LoginOk { user: Arc::from(user), impersonator }, more);
            let peer = client.peer;
            if std::mem::take(&mut client.stranger) {
                self.no_longer_a_stranger(peer);
            }
        }
    }

    /// Opens a vhost for a client that may use it.
    pub(super) fn open_vhost(&mut self, place: usize, vhost: &str, more: &mut Vec<Output>) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(place) else { return };
        let user = client.amqp.user().cloned().unwrap_or_else(|| Arc::from(""));
        let answer = if self.parts.topology.vhost(vhost).is_none() {
            Err(Exception::vhost_not_found(vhost))
        } else {
            self.parts.access.may_open(&UserName::from(&*user), &VhostName::from(vhost)).map_err(exception)
        };
        match answer {
            Ok(()) => {
                client.vhost = Some(Arc::from(vhost));
                client.amqp.step(now, Input::OpenOk, more);
                let name = client.amqp.connection_name();
                tracing::info!(peer = %client.peer, connection = client.number, user = &*user, vhost, name, "connection opened");
                self.tell_alarm_to(place, more);
            }
            Err(exception) => client.amqp.step(now, Input::OpenRefused(exception), more),
        }
    }
}
