//! Exit codes, in the family of sysexits.h that rabbitmqctl uses.

use std::fmt;

use proto::admin::v1::{Outcome, Reason};
use tonic::{Code, Status};

/// How a run ends when it does not end well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 64: a wrong command line.
    Usage = 64,
    /// 65: bad data, or something that is named does not exist.
    Data = 65,
    /// 67: no such user.
    NoUser = 67,
    /// 69: the broker cannot be reached, or refuses; or a check failed.
    Unavailable = 69,
    /// 70: a fault of the broker or of brokerctl.
    Software = 70,
    /// 75: no answer in time; try again.
    TryAgain = 75,
    /// 77: not permitted.
    Denied = 77,
    /// 78: the file of contexts is wrong.
    Config = 78,
}

/// What went wrong, in words, and the code to end with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, to what, and what to do.
    pub text: String,
    /// Why a change was refused, if one was.
    pub reason: Option<Reason>,
}

impl Failure {
    /// A failure with this code and text.
    pub fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), reason: None }
    }

    /// A wrong command line.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let exit = match status.code() {
            Code::InvalidArgument | Code::NotFound | Code::ResourceExhausted | Code::OutOfRange => Exit::Data,
            Code::Unavailable | Code::Unimplemented => Exit::Unavailable,
            Code::DeadlineExceeded => Exit::TryAgain,
            Code::PermissionDenied | Code::Unauthenticated => Exit::Denied,
            _ => Exit::Software,
        };
        Failure::new(exit, with_cause(&status))
    }
}

/// What the transport says of itself is that it failed; its innermost cause says why.
fn with_cause(status: &Status) -> String {
    let first = std::error::Error::source(status);
    let cause = std::iter::successors(first, |error| error.source()).last().map(ToString::to_string);
    match cause {
        Some(cause) if !status.message().contains(&cause) => format!("{}: {cause}", status.message()),
        _ => status.message().to_owned(),
    }
}

/// Whether a change was carried out, and changed anything; a refusal is a failure.
pub fn accepted(outcome: &Outcome) -> Result<bool, Failure> {
    let exit = match outcome.reason() {
        Reason::Accepted => return Ok(outcome.changed),
        Reason::NoSuchUser => Exit::NoUser,
        Reason::NoSuchVhost | Reason::NotFound | Reason::Invalid => Exit::Data,
        Reason::Exists | Reason::Conflict => Exit::Unavailable,
    };
    Err(Failure { exit, text: outcome.text.clone(), reason: Some(outcome.reason()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_codes() {
        let code = |reason: Reason| {
            accepted(&Outcome { changed: true, reason: reason.into(), text: "why".into() })
                .map_err(|failure| failure.exit)
        };
        assert_eq!(code(Reason::Accepted), Ok(true));
        assert_eq!(code(Reason::NoSuchUser), Err(Exit::NoUser));
        assert_eq!(code(Reason::NoSuchVhost), Err(Exit::Data));
        assert_eq!(code(Reason::Conflict), Err(Exit::Unavailable));
        assert_eq!(Failure::from(Status::deadline_exceeded("late")).exit, Exit::TryAgain);
    }
}
