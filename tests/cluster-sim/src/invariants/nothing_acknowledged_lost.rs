//! What was acknowledged is in the catalog of every node at the end, and what was deleted stays away. Each name is created by one proposal and deleted by
//! at most one, which begins after the first was acknowledged.

use std::collections::BTreeMap;

use crate::history::{Change, History};

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    // Whether it must be there; none: either.
    let mut due: BTreeMap<&str, Option<bool>> = BTreeMap::new();
    for proposal in &history.proposals {
        let is_acknowledged = proposal.acknowledged.is_some();
        match &proposal.change {
            Change::Create(name) => drop(due.insert(name, is_acknowledged.then_some(true))),
            Change::Delete(name) => drop(due.insert(name, is_acknowledged.then_some(false))),
        }
    }
    for (node, standing) in &history.end {
        let Some(standing) = standing else { continue };
        for (name, due) in &due {
            let is_there = standing.names.iter().any(|there| there == name);
            if due.is_some_and(|due| due != is_there) {
                let (said, is) = if is_there { ("deleted", "there") } else { ("created", "missing") };
                return Err(format!("{name} was {said}, which was acknowledged, and is {is} on {node}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Proposal, Standing};

    #[test]
    fn what_is_lost_or_comes_back_is_seen() {
        let mut history = History::default();
        let proposal = |change, acknowledged| Proposal { change, began: 1, acknowledged, answer: String::new() };
        history.proposals = vec![
            proposal(Change::Create("x".into()), Some((2, 1))),
            proposal(Change::Create("y".into()), Some((2, 2))),
            proposal(Change::Create("z".into()), None),
            proposal(Change::Delete("y".into()), Some((3, 3))),
        ];
        let mut ends = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            history.end.insert("a".into(), Some(Standing { names, ..Standing::default() }));
            check(&history)
        };
        assert_eq!(ends(&["x"]), Ok(()));
        assert_eq!(ends(&["x", "z"]), Ok(()));
        assert!(ends(&["z"]).is_err());
        assert!(ends(&["x", "y"]).is_err());
    }
}
