//! An exclusive name is that of one connection. Two nodes that cannot reach each other may each grant it; when a link has come up the one with the lower
//! number keeps it, as soon as what was said on the link has come through or the link has failed.

use crate::history::{Held, History, LOOKS_EVERY_MS, While};

/// By then what was said on a link has come through, or the link has failed: 5 s, and what a bad network takes.
const HEARD_BY_MS: u64 = 7_000;

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    for (at, one) in history.held.iter().enumerate() {
        let same = |other: &&Held| other.name == one.name && other.node != one.node;
        for other in history.held.iter().skip(at + 1).filter(same) {
            let Some(both) = common(one.time, other.time) else { continue };
            let between =
                |node, other| history.linked.iter().filter(move |linked| (linked.node, linked.other) == (node, other));
            for here in between(one.node, other.node) {
                for there in between(other.node, one.node) {
                    let linked =
                        common(here.time, there.time).map(|linked| While { from: linked.from + HEARD_BY_MS, ..linked });
                    if let Some(wrong) = linked.and_then(|linked| common(linked, both)) {
                        let (name, node, other) = (&one.name, one.node, other.node);
                        return Err(format!(
                            "nodes {node} and {other} both keep {name} for a client each, from {} to {} ms, and have had a link for long",
                            wrong.from, wrong.until
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}

fn common(one: While, other: While) -> Option<While> {
    let both = While { from: one.from.max(other.from), until: one.until.min(other.until) };
    // That somebody has lost something is seen a little later.
    (both.from + 2 * LOOKS_EVERY_MS < both.until).then_some(both)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Linked;

    #[test]
    fn a_name_that_two_have_who_could_have_heard_is_seen() {
        let held = |node, from, until| Held { name: "x".into(), node, time: While { from, until } };
        let linked = |node, other, from| Linked { node, other, time: While { from, until: 90_000 } };
        let mut history = History::default();
        history.held.extend([held(1, 1_000, 20_000), held(2, 2_000, 12_000), held(2, 21_000, 30_000)]);
        assert_eq!(check(&history), Ok(()), "they could not hear of each other");
        history.linked.extend([linked(1, 2, 4_000), linked(2, 1, 6_000)]);
        assert_eq!(check(&history), Ok(()), "the link has just come up");
        history.linked.push(linked(2, 1, 4_500));
        assert!(check(&history).is_err());
    }
}
