//! Ways to make users and give them permissions, for each broker its own.

use broker_core::access::{PasswordHash, User};
use broker_meta::command;
use conformance::Error;
use harness::RabbitMq;

use crate::node::Node;

/// The password of every user that is made here.
pub const PASSWORD: &str = "secret";

/// A user, and its three patterns in the vhost `/`.
#[derive(Debug)]
pub struct NewUser {
    /// The name.
    pub name: String,
    /// What it may configure, write and read.
    pub patterns: [String; 3],
}

/// A broker whose users can be changed while it runs.
pub trait Users {
    /// Makes users with permissions in the vhost `/`.
    fn add(&mut self, users: &[NewUser]) -> Result<(), Error>;
}

impl Users for Node {
    fn add(&mut self, users: &[NewUser]) -> Result<(), Error> {
        for user in users {
            let password = Some(PasswordHash::rabbit_sha256(PASSWORD.as_bytes(), [1, 2, 3, 4]));
            let record = User { name: user.name.as_str().into(), password, tags: Vec::new() };
            let [configure, write, read] = &user.patterns;
            for command in
                [command::put_user(&record), command::set_permissions(&user.name, "/", configure, write, read)]
            {
                if let Some(refusal) = self.apply(command) {
                    return Err(Error::new(refusal));
                }
            }
        }
        Ok(())
    }
}

impl Users for RabbitMq {
    /// All in one command: each takes a second or two to start.
    fn add(&mut self, users: &[NewUser]) -> Result<(), Error> {
        let one = |user: &NewUser| {
            let NewUser { name, patterns: [configure, write, read] } = user;
            let module = "rabbit_auth_backend_internal";
            let binary = |text: &str| format!("<<\"{}\">>", text.replace('\\', "\\\\"));
            let (name, configure, write, read) = (binary(name), binary(configure), binary(write), binary(read));
            format!(
                "{module}:add_user({name}, <<\"{PASSWORD}\">>, <<\"test\">>), \
                 {module}:set_permissions({name}, <<\"/\">>, {configure}, {write}, {read}, <<\"test\">>)"
            )
        };
        let all: Vec<String> = users.iter().map(one).collect();
        self.ctl(&["eval", &format!("{}, ok.", all.join(", "))]).map(|_| ()).map_err(Error::from)
    }
}
