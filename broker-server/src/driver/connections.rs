//! Logins, and opening a vhost.

use std::sync::Arc;

use broker_amqp::{Exception, Input, Login, Output};
use broker_core::name::{UserName, VhostName};

use super::login::LoginResult;
use super::requests::exception;
use super::shard::Shard;

/// Passwords found right are remembered, by a keyed hash, for as long as the users stay the same: so many at most.
const REMEMBERED_MAX: usize = 4096;

impl Shard {
    /// Checks who a client is: at once if the same was found right before, else on the login thread.
    pub(super) fn check_login(&mut self, place: usize, login: Login, more: &mut Vec<Output>) {
        let Login { user, password, .. } = login;
        let Some(client) = self.clients.get_mut(place) else { return };
        let loopback_only = self.parts.loopback_users.iter().any(|only| **only == *user);
        let peer_is_loopback = client.peer.ip().to_canonical().is_loopback();
        let login = self.parts.access.login(&user, &password, loopback_only, peer_is_loopback);
        if login.cache_key(&self.login_key).is_some_and(|key| self.verified.contains(&key)) {
            self.logged_in(place, &user, more);
            return;
        }
        if !self.parts.login.check(client.number, login) {
            tracing::warn!(peer = %client.peer, user = &*user, "login refused: too many logins wait");
            client.amqp.step(self.now, Input::LoginRefused, more);
        }
    }

    /// The login thread has checked a password.
    pub(super) fn login_checked(&mut self, result: LoginResult) {
        let LoginResult { connection, login, outcome } = result;
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
                if let Some(client) = self.clients.get_mut(place) {
                    tracing::warn!(peer = %client.peer, user = login.user().as_str(), "login refused: {refused}");
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
