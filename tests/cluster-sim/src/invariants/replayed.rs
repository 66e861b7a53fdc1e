//! The catalog is what its log says and nothing else: carried out once more from the beginning, the entries of every node give after each the catalog that
//! the nodes had after it while they ran; and a change that was acknowledged is what its entry does. With `acknowledged_in_order` this
//! is linearizability: one order of changes that keeps the order of time, and every answer the one of that order.

use crate::history::{History, Replayed};

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    for (key, replayed) in &history.replayed {
        let seen = history.applied.get(key).into_iter().flatten();
        for Replayed { node, catalog, .. } in replayed {
            if let Some((other, _)) = seen.clone().find(|(_, seen)| seen != catalog) {
                return Err(format!("after entry {} {other} had another catalog than the log of {node} gives", key.1));
            }
        }
    }
    // Of the numbers of entries only one cluster has given out those that were acknowledged (`one_cluster`).
    for proposal in &history.proposals {
        let Some((_, index)) = proposal.acknowledged else { continue };
        let entries = history.replayed.iter().filter(|((_, at), _)| *at == index);
        for Replayed { node, done, .. } in entries.flat_map(|(_, replayed)| replayed) {
            if !done.contains(&proposal.change) {
                let change = &proposal.change;
                return Err(format!(
                    "{change:?} was acknowledged for entry {index}, which in the log of {node} does {done:?}"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Change, Proposal};

    #[test]
    fn a_log_that_says_something_else_is_seen() {
        let mut history = History::default();
        let change = Change::Create("v".into());
        let replayed = |done| Replayed { node: "a".into(), catalog: 1, done };
        history.applied.insert(("1".into(), 7), vec![("a".into(), 1), ("b".into(), 1)]);
        history.replayed.insert(("1".into(), 7), vec![replayed(vec![change.clone()])]);
        history.proposals.push(Proposal { change, began: 1, acknowledged: Some((2, 7)) });
        assert_eq!(check(&history), Ok(()));
        let mut parted = history.clone();
        parted.applied.insert(("1".into(), 7), vec![("a".into(), 1), ("b".into(), 2)]);
        assert!(check(&parted).is_err());
        history.replayed.insert(("1".into(), 7), vec![replayed(Vec::new())]);
        assert!(check(&history).is_err());
    }
}
