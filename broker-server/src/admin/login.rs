//! Logging in to the admin service from elsewhere: name and password of a user of the broker, as HTTP Basic with every request.
//!
//! A password that was found right is remembered by a keyed hash, for as long as the user stays the same, so that it is hashed once. Guesses are slowed
//! down as on the AMQP port. Every refusal has the same text and takes as long, whatever it is for; the log says what it was.

#![allow(clippy::result_large_err, reason = "tonic's own error")]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker_core::access::{Login, LoginRefused};
use tokio::sync::Semaphore;
use tonic::Status;
use tonic::codegen::http::HeaderValue;
use zeroize::Zeroizing;

use super::ShardHandle;
use super::caller::Caller;
use super::rights::{TAGS, has_a_tag};
use super::service::blocking;
use crate::config::AuthenticationConfig;
use crate::driver::admin::Request as ShardRequest;
use crate::driver::throttle::{Asker, Throttle};

/// Passwords that are hashed at the same time: each takes 19 MiB, and a core.
const HASHED_TOGETHER: usize = 2;
/// Right passwords that are remembered.
const REMEMBERED_MAX: usize = 4096;
/// While enough passwords from its address are being checked, a login is looked at again after this time.
const CHECK_PAUSE: Duration = Duration::from_millis(50);
/// What precedes user and password.
const SCHEME: &str = "basic ";

const NOBODY: &str = "user and password are missing: the metadata `authorization` takes them as HTTP Basic, \
                      and brokerctl sends them with --login USER";
const REFUSED: &str = "login refused: the password is wrong, or there is no such user, or it may not log in from here; \
                       the broker's log says which";

/// See the module's page.
pub struct Logins {
    shard: ShardHandle,
    loopback_users: Vec<String>,
    throttle: Mutex<Throttle>,
    verified: Mutex<HashSet<[u8; 32]>>,
    /// Of the hashes by which passwords are remembered: random, and secret to the process.
    key: [u8; 32],
    hashing: Arc<Semaphore>,
}

impl Logins {
    /// Nobody has logged in yet.
    pub fn new(shard: ShardHandle, config: &AuthenticationConfig, key: [u8; 32]) -> Self {
        Self {
            shard,
            loopback_users: config.loopback_users.clone(),
            throttle: Mutex::new(Throttle::new(config.login_failures_max)),
            verified: Mutex::default(),
            key,
            hashing: Arc::new(Semaphore::new(HASHED_TOGETHER)),
        }
    }

    /// Who that is, if the password is right and the user is one that may log in here.
    pub async fn admit(self: &Arc<Self>, peer: SocketAddr, header: Option<&HeaderValue>) -> Result<Caller, Status> {
        let header = header.ok_or_else(|| Status::unauthenticated(NOBODY))?;
        let credentials = credentials(header).ok_or_else(|| Status::unauthenticated(NOBODY))?;
        let (user, password) = credentials.split_once(':').ok_or_else(|| Status::unauthenticated(NOBODY))?;
        self.check(peer, user, password.as_bytes()).await?;
        // As it is now: hashing takes long.
        let catalog = self.shard.ask(ShardRequest::Catalog).await?;
        let access = catalog.access();
        let user = access.user(user).cloned().ok_or_else(|| Status::unauthenticated(REFUSED))?;
        let caller = Caller::new(user, peer, access, catalog);
        if has_a_tag(&caller.user) {
            return Ok(caller);
        }
        let tags = TAGS.join(", ");
        Err(caller
            .refused(&format!("it takes one of the tags {tags} (an administrator gives them: brokerctl user tags)")))
    }

    async fn check(self: &Arc<Self>, peer: SocketAddr, user: &str, password: &[u8]) -> Result<(), Status> {
        let asker = self.throttle().asker(peer.ip(), user);
        let login = self.login(peer, user, password).await?;
        if self.is_remembered(&login) {
            return Ok(());
        }
        let delay = self.throttle().delay(Instant::now(), asker);
        if !delay.is_zero() {
            tracing::debug!(%peer, user, ?delay, "login of an operator delayed after refused ones");
            tokio::time::sleep(delay).await;
        }
        let permit = loop {
            let permit = self.hashing.clone().acquire_owned().await.map_err(|_| Status::unavailable("stopping"))?;
            if self.throttle().begin(asker) {
                break permit;
            }
            drop(permit);
            tokio::time::sleep(CHECK_PAUSE).await;
        };
        // What was begun is ended there, and a refusal counted, also if the peer does not stay to hear of it.
        let logins = self.clone();
        let work = move || {
            let outcome = login.verify();
            logins.checked(asker, &login, outcome.is_ok());
            drop(permit);
            (login, outcome)
        };
        let (login, outcome) = blocking(work).await?;
        let current = self.shard.ask(ShardRequest::Catalog).await?.access().is_current(&login);
        outcome.and_then(|()| current.then_some(()).ok_or(LoginRefused::Changed)).map_err(|refused| {
            tracing::warn!(%peer, user, "login of an operator refused: {refused}");
            Status::unauthenticated(REFUSED)
        })
    }

    async fn login(&self, peer: SocketAddr, user: &str, password: &[u8]) -> Result<Login, Status> {
        let loopback_only = self.loopback_users.iter().any(|only| only == user);
        let is_loopback = peer.ip().to_canonical().is_loopback();
        Ok(self.shard.ask(ShardRequest::Catalog).await?.access().login(user, password, loopback_only, is_loopback))
    }

    fn is_remembered(&self, login: &Login) -> bool {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        login.cache_key(&self.key).is_some_and(|key| verified.contains(&key))
    }

    fn checked(&self, asker: Asker, login: &Login, right: bool) {
        let mut throttle = self.throttle();
        throttle.ended(asker);
        if !right {
            return throttle.refused(Instant::now(), asker);
        }
        drop(throttle);
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= REMEMBERED_MAX {
            verified.clear();
        }
        verified.extend(login.cache_key(&self.key));
    }

    fn throttle(&self) -> std::sync::MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `USER:PASSWORD` of a header. Headers are bounded in length, so this is.
fn credentials(header: &HeaderValue) -> Option<Zeroizing<String>> {
    let text = header.to_str().ok()?;
    let encoded = text.get(SCHEME.len()..)?;
    if !text.get(..SCHEME.len())?.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let octets = STANDARD.decode(encoded.trim()).ok()?;
    String::from_utf8(octets).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Option<String> {
        HeaderValue::from_str(header).ok().and_then(|header| credentials(&header)).map(|text| text.to_string())
    }

    #[test]
    fn basic_is_read_whatever_its_case_and_nothing_else_is() {
        assert_eq!(read("Basic YW5uOnNlY3JldA=="), Some("ann:secret".into()));
        assert_eq!(read("bAsIc  YW5uOnNlOmNyZXQ="), Some("ann:se:cret".into()));
        for wrong in ["", "Basic", "Basic ", "Bearer YW5uOnNlY3JldA==", "Basic ann:secret", "Basic /w==", "Bäsic x"] {
            assert_eq!(read(wrong).filter(|text| !text.is_empty()), None, "{wrong}");
        }
    }
}
