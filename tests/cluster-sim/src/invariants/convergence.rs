//! A while after the heal every node that may serves, and all of them agree: on the leader, on who votes, on the catalog; each sees and has a link to each.

use crate::history::History;

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    let mut standings = Vec::new();
    for (node, standing) in &history.end {
        standings.push((node, standing.as_ref().ok_or_else(|| format!("{node} does not serve"))?));
    }
    let Some((first, model)) = standings.first() else { return Ok(()) };
    let numbers: Vec<u64> = {
        let mut numbers: Vec<u64> = standings.iter().map(|(_, standing)| standing.number).collect();
        numbers.sort_unstable();
        numbers
    };
    for (node, standing) in &standings {
        let others: Vec<u64> = numbers.iter().copied().filter(|number| *number != standing.number).collect();
        if standing.leader.is_none() || standing.leader != model.leader {
            return Err(format!("{first} follows {:?}, {node} {:?}", model.leader, standing.leader));
        }
        if standing.catalog != model.catalog {
            return Err(format!("{first} and {node} have different catalogs"));
        }
        for (what, found, due) in [
            ("votes", &standing.voters, &numbers),
            ("is seen", &standing.seen, &numbers),
            ("has a link", &standing.links, &others),
        ] {
            if found != due {
                return Err(format!("for {node}, who {what} is {found:?} and not {due:?}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Standing;

    #[test]
    fn nodes_that_do_not_agree_are_seen() {
        let standing = |number: u64| Standing {
            number,
            leader: Some(1),
            voters: vec![1, 2],
            seen: vec![1, 2],
            links: vec![3 - number],
            ..Standing::default()
        };
        let history = |change: fn(&mut Standing)| {
            let (mut history, mut other) = (History::default(), standing(2));
            change(&mut other);
            history.end.insert("a".into(), Some(standing(1)));
            history.end.insert("b".into(), Some(other));
            history
        };
        assert_eq!(check(&history(|_| {})), Ok(()));
        let changes: [fn(&mut Standing); 5] = [
            |standing| standing.leader = Some(2),
            |standing| standing.catalog = 7,
            |standing| standing.voters = vec![1],
            |standing| standing.seen = vec![2],
            |standing| standing.links.clear(),
        ];
        for change in changes {
            assert!(check(&history(change)).is_err());
        }
        let mut silent = history(|_| {});
        silent.end.insert("c".into(), None);
        assert!(check(&silent).is_err());
    }
}
