//! While all is well, whatever a client asks for is answered: the opening of a channel, a declaration, a publish with confirms, a get, a commit.

use crate::history::History;

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    history.unanswered.first().map_or(Ok(()), |what| Err(what.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_waits_is_seen() {
        let mut history = History::default();
        assert_eq!(check(&history), Ok(()));
        history.unanswered.push("client 1 waits".into());
        assert!(check(&history).is_err());
    }
}
