//! Operations, the rights they take, and 64 users with every combination of rights.
//!
//! Names are in two sets: *ours* (`p-...`, and names the broker made) and *theirs* (`s-...`, and the default exchange). A user has each of the rights
//! to configure, write and read on each of the sets or not. No operation touches more than two things, and two things are never in the same set.

use conformance::Error;

use crate::session::{Arguments, Session};
use crate::users::{NewUser, Users};

/// How many combinations of three rights on two sets of names there are.
pub const USERS: usize = 64;

/// One right on one set of names, as a bit of a user's number.
const CONFIGURE: u8 = 0;
const WRITE: u8 = 1;
const READ: u8 = 2;
/// Added for the other set.
const THEIRS: u8 = 3;

/// Patterns for the two sets.
const OURS_PATTERN: &str = "^(p-|amq\\.gen)";
const THEIRS_PATTERN: &str = "^(s-|amq\\.default$)";

const NOT_ON_DEFAULT: &str = "403 ACCESS_REFUSED - operation not permitted on the default exchange";

/// Something a client asks for.
pub struct Operation {
    /// What it is, for people.
    pub name: &'static str,
    /// The method.
    method: &'static str,
    arguments: Arguments<'static>,
    /// The rights it takes, in the order in which they are asked for, and what each is on.
    needs: &'static [(u8, &'static str)],
    /// What comes of it where all rights are there.
    outcome: &'static str,
    /// What undoes it then, done by the same user, who may: without it, nothing was done that lasts.
    undo: Option<(&'static str, Arguments<'static>)>,
}

const OK: &str = "ok";

/// An operation that leaves nothing behind.
const fn asks(
    name: &'static str,
    method: &'static str,
    arguments: Arguments<'static>,
    needs: &'static [(u8, &'static str)],
) -> Operation {
    Operation { name, method, arguments, needs, outcome: OK, undo: None }
}

impl Operation {
    const fn undone_by(mut self, method: &'static str, arguments: Arguments<'static>) -> Operation {
        self.undo = Some((method, arguments));
        self
    }

    const fn comes_to(mut self, outcome: &'static str) -> Operation {
        self.outcome = outcome;
        self
    }

    /// What it comes to for a user, by the table.
    pub fn expected(&self, user: usize) -> String {
        let missing = self.needs.iter().find(|(right, _)| user >> right & 1 == 0);
        missing.map_or_else(
            || self.outcome.to_owned(),
            |(_, on)| {
                format!("403 ACCESS_REFUSED - access to {on} in vhost '/' refused for user '{}'", user_name(user))
            },
        )
    }
}

/// Every method that a client may send, with the kinds of things it can name.
pub const OPERATIONS: &[Operation] = &[
    asks(
        "exchange.declare of a new one",
        "exchange.declare",
        &[("exchange", "p-new"), ("type", "direct")],
        &[(CONFIGURE, "exchange 'p-new'")],
    )
    .undone_by("exchange.delete", &[("exchange", "p-new")]),
    asks(
        "exchange.declare of an existing one",
        "exchange.declare",
        &[("exchange", "p-x"), ("type", "direct")],
        &[(CONFIGURE, "exchange 'p-x'")],
    ),
    asks("exchange.declare, passive", "exchange.declare", &[("exchange", "p-x"), ("passive", "true")], &[]),
    asks(
        "exchange.declare, passive, of a missing one",
        "exchange.declare",
        &[("exchange", "p-none"), ("passive", "true")],
        &[],
    )
    .comes_to("404 NOT_FOUND - no exchange 'p-none' in vhost '/'"),
    asks("exchange.declare of the default one", "exchange.declare", &[("type", "direct")], &[])
        .comes_to(NOT_ON_DEFAULT),
    asks(
        "exchange.declare with an alternate exchange",
        "exchange.declare",
        &[("exchange", "p-new"), ("type", "direct"), ("arguments", "{alternate-exchange:S s-x}")],
        &[(CONFIGURE, "exchange 'p-new'"), (READ, "exchange 'p-new'"), (WRITE + THEIRS, "exchange 's-x'")],
    )
    .undone_by("exchange.delete", &[("exchange", "p-new")]),
    asks(
        "exchange.declare of an existing one with an alternate exchange",
        "exchange.declare",
        &[("exchange", "p-ae"), ("type", "direct"), ("arguments", "{alternate-exchange:S s-x}")],
        &[(CONFIGURE, "exchange 'p-ae'")],
    ),
    asks("exchange.delete", "exchange.delete", &[("exchange", "p-none")], &[(CONFIGURE, "exchange 'p-none'")]),
    asks("exchange.delete of the default one", "exchange.delete", &[], &[]).comes_to(NOT_ON_DEFAULT),
    asks(
        "exchange.bind",
        "exchange.bind",
        &[("destination", "p-x"), ("source", "s-x"), ("routing_key", "k")],
        &[(WRITE, "exchange 'p-x'"), (READ + THEIRS, "exchange 's-x'")],
    ),
    asks(
        "exchange.unbind",
        "exchange.unbind",
        &[("destination", "p-x"), ("source", "s-x"), ("routing_key", "k")],
        &[(WRITE, "exchange 'p-x'"), (READ + THEIRS, "exchange 's-x'")],
    ),
    asks(
        "exchange.bind to the default one",
        "exchange.bind",
        &[("source", "p-x")],
        &[(WRITE + THEIRS, "exchange 'amq.default'")],
    )
    .comes_to(NOT_ON_DEFAULT),
    asks(
        "exchange.bind from the default one",
        "exchange.bind",
        &[("destination", "p-x")],
        &[(WRITE, "exchange 'p-x'")],
    )
    .comes_to(NOT_ON_DEFAULT),
    asks("queue.declare of a new one", "queue.declare", &[("queue", "p-new")], &[(CONFIGURE, "queue 'p-new'")])
        .undone_by("queue.delete", &[("queue", "p-new")]),
    asks("queue.declare of an existing one", "queue.declare", &[("queue", "p-q")], &[(CONFIGURE, "queue 'p-q'")]),
    asks("queue.declare, passive", "queue.declare", &[("queue", "p-q"), ("passive", "true")], &[]),
    asks(
        "queue.declare, exclusive",
        "queue.declare",
        &[("queue", "p-mine"), ("exclusive", "true")],
        &[(CONFIGURE, "queue 'p-mine'")],
    )
    .undone_by("queue.delete", &[("queue", "p-mine")]),
    asks(
        "queue.declare, the name left to the broker",
        "queue.declare",
        &[("exclusive", "true")],
        &[(CONFIGURE, "queue 'amq.gen-*'")],
    )
    .undone_by("queue.delete", &[]),
    asks(
        "queue.declare with a dead letter exchange",
        "queue.declare",
        &[("queue", "p-new"), ("arguments", "{x-dead-letter-exchange:S s-x}")],
        &[(CONFIGURE, "queue 'p-new'"), (READ, "queue 'p-new'"), (WRITE + THEIRS, "exchange 's-x'")],
    )
    .undone_by("queue.delete", &[("queue", "p-new")]),
    asks(
        "queue.declare of an existing one with a dead letter exchange",
        "queue.declare",
        &[("queue", "p-dl"), ("arguments", "{x-dead-letter-exchange:S s-x}")],
        &[(CONFIGURE, "queue 'p-dl'")],
    ),
    asks(
        "queue.bind",
        "queue.bind",
        &[("queue", "p-q"), ("exchange", "s-x"), ("routing_key", "k")],
        &[(WRITE, "queue 'p-q'"), (READ + THEIRS, "exchange 's-x'")],
    ),
    asks(
        "queue.bind to a topic exchange",
        "queue.bind",
        &[("queue", "p-q"), ("exchange", "s-t"), ("routing_key", "k.#")],
        &[(WRITE, "queue 'p-q'"), (READ + THEIRS, "exchange 's-t'")],
    ),
    asks("queue.bind to the default exchange", "queue.bind", &[("queue", "p-q")], &[(WRITE, "queue 'p-q'")])
        .comes_to(NOT_ON_DEFAULT),
    asks(
        "queue.unbind",
        "queue.unbind",
        &[("queue", "p-q"), ("exchange", "s-x"), ("routing_key", "k")],
        &[(WRITE, "queue 'p-q'"), (READ + THEIRS, "exchange 's-x'")],
    ),
    asks("queue.purge", "queue.purge", &[("queue", "p-empty")], &[(READ, "queue 'p-empty'")]),
    asks("queue.delete", "queue.delete", &[("queue", "p-none")], &[(CONFIGURE, "queue 'p-none'")]),
    asks("basic.get", "basic.get", &[("queue", "p-empty"), ("no_ack", "true")], &[(READ, "queue 'p-empty'")]),
    asks(
        "basic.consume",
        "basic.consume",
        &[("queue", "p-empty"), ("consumer_tag", "c")],
        &[(READ, "queue 'p-empty'")],
    )
    .undone_by("basic.cancel", &[("consumer_tag", "c")]),
    asks("basic.cancel", "basic.cancel", &[("consumer_tag", "none")], &[]),
    asks("basic.qos", "basic.qos", &[("prefetch_count", "5")], &[]),
    asks("basic.recover", "basic.recover", &[("requeue", "true")], &[]),
    asks("confirm.select", "confirm.select", &[], &[]),
    asks("basic.publish", PUBLISH, &[("exchange", "p-x"), ("routing_key", "nowhere")], &[(WRITE, "exchange 'p-x'")]),
    asks(
        "basic.publish to a topic exchange",
        PUBLISH,
        &[("exchange", "s-t"), ("routing_key", "a.b")],
        &[(WRITE + THEIRS, "exchange 's-t'")],
    ),
    asks(
        "basic.publish to the default exchange",
        PUBLISH,
        &[("exchange", ""), ("routing_key", "p-none")],
        &[(WRITE + THEIRS, "exchange 'amq.default'")],
    ),
    asks(
        "basic.publish to an internal exchange",
        PUBLISH,
        &[("exchange", "p-internal"), ("routing_key", "k")],
        &[(WRITE, "exchange 'p-internal'")],
    )
    .comes_to("403 ACCESS_REFUSED - cannot publish to internal exchange 'p-internal' in vhost '/'"),
    asks(
        "basic.publish to a missing exchange",
        PUBLISH,
        &[("exchange", "p-none"), ("routing_key", "k")],
        &[(WRITE, "exchange 'p-none'")],
    )
    .comes_to("404 NOT_FOUND - no exchange 'p-none' in vhost '/'"),
    asks("channel.flow", "channel.flow", &[("active", "true")], &[]),
    asks("access.request", "access.request", &[], &[]),
    // The channel is closed and opened again, as the confirm mode of the operations before it would forbid this.
    asks("channel.close", "channel.close", &[("reply_code", "200")], &[]).undone_by("channel.open", &[]),
    asks("tx.select", "tx.select", &[], &[]),
    asks(
        "basic.publish in a transaction",
        PUBLISH_AND_COMMIT,
        &[("exchange", "p-x"), ("routing_key", "nowhere")],
        &[(WRITE, "exchange 'p-x'")],
    ),
];

/// A publish on a channel in confirm mode, which it puts itself into.
const PUBLISH: &str = "basic.publish";
/// A publish on a transactional channel, and its commit.
const PUBLISH_AND_COMMIT: &str = "basic.publish, tx.commit";

/// What each operation came to for each user.
pub type Outcomes = Vec<Vec<String>>;

/// What there is before it begins.
const WORLD: &[(&str, Arguments<'static>)] = &[
    ("exchange.declare", &[("exchange", "p-x"), ("type", "direct")]),
    ("exchange.declare", &[("exchange", "s-x"), ("type", "direct")]),
    ("exchange.declare", &[("exchange", "s-t"), ("type", "topic")]),
    ("exchange.declare", &[("exchange", "p-internal"), ("type", "direct"), ("internal", "true")]),
    ("exchange.declare", &[("exchange", "p-ae"), ("type", "direct"), ("arguments", "{alternate-exchange:S s-x}")]),
    ("queue.declare", &[("queue", "p-q")]),
    ("queue.declare", &[("queue", "p-empty")]),
    ("queue.declare", &[("queue", "p-dl"), ("arguments", "{x-dead-letter-exchange:S s-x}")]),
];

fn user_name(user: usize) -> String {
    format!("u{user:02}")
}

/// The users, each with the rights that the bits of its number say.
fn users() -> Vec<NewUser> {
    let pattern = |user: usize, right: u8| {
        let held = |bit: u8, pattern| (user >> bit & 1 == 1).then_some(pattern);
        let held = [held(right, OURS_PATTERN), held(right + THEIRS, THEIRS_PATTERN)];
        held.into_iter().flatten().collect::<Vec<_>>().join("|")
    };
    (0..USERS)
        .map(|user| NewUser {
            name: user_name(user),
            patterns: [CONFIGURE, WRITE, READ].map(|right| pattern(user, right)),
        })
        .collect()
}

/// Plays every operation as every user.
pub fn play(broker: &mut dyn Users, port: u16) -> Result<Outcomes, Error> {
    broker.add(&users())?;
    let mut guest = Session::open(port, "guest", "/")?;
    for (method, arguments) in WORLD {
        match guest.call(method, arguments)?.as_str() {
            OK => {}
            other => return Err(Error::new(format!("{method}: {other}"))),
        }
    }
    let mut outcomes = vec![Vec::with_capacity(USERS); OPERATIONS.len()];
    for user in 0..USERS {
        let mut session = Session::open(port, &user_name(user), "/")?;
        for (operation, outcomes) in OPERATIONS.iter().zip(&mut outcomes) {
            let outcome = attempt(&mut session, operation)?;
            if outcome.starts_with("connection ") {
                session = Session::open(port, &user_name(user), "/")?;
            }
            outcomes.push(outcome);
        }
    }
    Ok(outcomes)
}

fn attempt(session: &mut Session, operation: &Operation) -> Result<String, Error> {
    let named = |name| operation.arguments.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| *value);
    let publish = |session: &mut Session| session.publish(named("exchange"), named("routing_key"), &[]);
    let outcome = match operation.method {
        PUBLISH => {
            // Channels that were opened again have forgotten it.
            session.call("confirm.select", &[])?;
            publish(session)?;
            session.answer()?
        }
        PUBLISH_AND_COMMIT => {
            publish(session)?;
            session.send(1, "tx.commit", &[])?;
            session.answer()?
        }
        method => session.call(method, operation.arguments)?,
    };
    if let Some((method, arguments)) = operation.undo.filter(|_| outcome == OK) {
        match session.call(method, arguments)?.as_str() {
            OK => {}
            other => return Err(Error::new(format!("{} could not be undone: {other}", operation.name))),
        }
    }
    Ok(outcome)
}

/// As lines: for each operation what it came to, and for which users. What differs in the user's name only is one line.
pub fn to_text(outcomes: &Outcomes) -> String {
    let mut text = String::new();
    for (operation, outcomes) in OPERATIONS.iter().zip(outcomes) {
        text += &format!("{}\n", operation.name);
        let mut lines: Vec<(String, u64)> = Vec::new();
        for (user, outcome) in outcomes.iter().enumerate() {
            let outcome = outcome.replace(&user_name(user), "USER");
            match lines.iter_mut().find(|(other, _)| *other == outcome) {
                Some((_, users)) => *users |= 1 << user,
                None => lines.push((outcome, 1 << user)),
            }
        }
        for (outcome, users) in lines {
            text += &format!("  {users:016x} {outcome}\n");
        }
    }
    text
}

/// What the table says, in the same form as what was played.
pub fn expected() -> Outcomes {
    OPERATIONS.iter().map(|operation| (0..USERS).map(|user| operation.expected(user)).collect()).collect()
}
