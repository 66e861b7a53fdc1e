//! Logins, and opening a vhost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker_amqp::{Exception, Input, Login, Output, sasl};
use broker_core::access::{LoginRefused, Operation};

use super::login::LoginResult;
use super::requests::exception;
use super::shard::Shard;
use super::throttle::Asker;
use crate::tls::TlsPeer;

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
        if &*login.mechanism == sasl::EXTERNAL {
            return self.check_certificate(place, more);
        }
        let Some(client) = self.clients.get(place) else { return };
        let asker = self.throttle.asker(client.peer.ip(), &login.user);
        self.attempt_login(place, LoginAttempt { login, asker, waited: false, not_before: self.now }, more);
    }

    /// Lets in whom a certificate names that was verified in the TLS handshake. There is no password to guess, so nobody is made to wait.
    fn check_certificate(&mut self, place: usize, more: &mut Vec<Output>) {
        let Some(client) = self.clients.get_mut(place) else { return };
        let named = client.tls().ok_or("the connection has no TLS").and_then(TlsPeer::user);
        let peer_is_loopback = client.peer.ip().to_canonical().is_loopback();
        let admitted = named.and_then(|user| {
            if self.parts.access.user(user).is_none() {
                return Err("no such user");
            }
            let loopback_only = self.parts.loopback_users.iter().any(|only| only == user);
            if loopback_only && !peer_is_loopback { Err("user can only connect via localhost") } else { Ok(user) }
        });
        match admitted.map(Arc::<str>::from) {
            Ok(user) => self.logged_in(place, &user, more),
            Err(refused) => {
                let user = named.unwrap_or_default();
                tracing::warn!(peer = %client.peer, user, "login refused: {refused}");
                client.amqp.step(self.now, Input::LoginRefused, more);
            }
        }
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
        let current = self.parts.access.is_current(&login);
        match outcome.and_then(|()| current.then_some(()).ok_or(LoginRefused::Changed)) {
            Ok(()) => {
                if self.verified.len() >= REMEMBERED_MAX {
                    self.verified.clear();
                }
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
        let impersonator = self.parts.access.is_impersonator(user);
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
        let answer = self.may_open(place, vhost);
        let Some(client) = self.clients.get_mut(place) else { return };
        if let Err(exception) = answer {
            return client.amqp.step(now, Input::OpenRefused(exception), more);
        }
        let user = client.amqp.user().cloned().unwrap_or_else(|| Arc::from(""));
        let opened: Arc<str> = Arc::from(vhost);
        let allowance = self.tally.opened(&user, &opened, self.parts.access.user_limits(&user).channels);
        client.amqp.set_channel_allowance(allowance);
        client.counted = true;
        client.vhost = Some(opened);
        client.amqp.step(now, Input::OpenOk, more);
        let name = client.amqp.connection_name();
        tracing::info!(peer = %client.peer, connection = client.number, user = &*user, vhost, name, "connection opened");
        self.tell_alarm_to(place, more);
    }

    /// Limits come before permissions, as in RabbitMQ.
    fn may_open(&self, place: usize, vhost: &str) -> Result<(), Exception> {
        let user = self.user_name(place)?;
        let Some(found) = self.parts.topology.vhost(vhost) else { return Err(Exception::vhost_not_found(vhost)) };
        let (of_vhost, of_user) = (self.tally.of_vhost(vhost), self.tally.of_user(&user));
        self.parts.access.may_connect(&user, found.name(), of_vhost, of_user).map_err(exception)?;
        self.parts.access.authorize(&user, found, &Operation::Open).map_err(exception)
    }

    /// A client has opened or closed a channel.
    pub(super) fn channels_changed(&mut self, place: usize) {
        if let Some(user) = self.clients.get(place).and_then(|client| client.amqp.user()) {
            self.tally.channels_changed(user);
        }
    }

    /// A connection that closes or is gone makes room under the limits of its user and vhost.
    pub(super) fn uncount(&mut self, place: usize) {
        let Some(client) = self.clients.get_mut(place) else { return };
        if std::mem::take(&mut client.counted)
            && let (Some(user), Some(vhost)) = (client.amqp.user(), &client.vhost)
        {
            self.tally.closed(user, vhost);
        }
    }
}
