//! A direct reply comes to the client that asked and to no other, as often as it was sent at most; while all is well it comes.

use crate::history::History;

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    for (name, reply) in &history.replies {
        let asker = name.split_once('.').and_then(|(client, _)| client.parse::<u64>().ok());
        if let Some(client) = reply.heard.iter().find(|client| Some(**client) != asker) {
            return Err(format!("client {client} has heard the reply to request {name}"));
        }
        let (sent, heard) = (reply.sent.len(), reply.heard.len());
        if heard > sent {
            return Err(format!("the reply to request {name} was sent {sent} times and heard {heard} times"));
        }
        if heard == 0 && reply.is_due {
            return Err(format!("the reply to request {name} was sent at {:?} ms and not heard", reply.sent));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Reply;

    #[test]
    fn a_reply_that_goes_astray_is_seen() {
        let check = |sent: &[u64], heard: &[u64], is_due| {
            let mut history = History::default();
            history.replies.insert("3.1".into(), Reply { sent: sent.into(), heard: heard.into(), is_due });
            check(&history)
        };
        assert_eq!(check(&[1], &[], false), Ok(()), "it may be lost");
        assert_eq!(check(&[1, 2], &[3, 3], true), Ok(()));
        assert!(check(&[1], &[4], false).is_err());
        assert!(check(&[1], &[3, 3], false).is_err());
        assert!(check(&[1], &[], true).is_err());
    }
}
