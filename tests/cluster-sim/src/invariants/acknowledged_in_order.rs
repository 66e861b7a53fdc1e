//! Changes are linearizable: one that began after another was acknowledged comes after it in the log.

use crate::history::History;

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    let mut ended: Vec<(u64, u64)> = history.proposals.iter().filter_map(|proposal| proposal.acknowledged).collect();
    ended.sort_unstable();
    // The highest index acknowledged up to each moment.
    let mut highest = 0;
    for (_, index) in &mut ended {
        highest = highest.max(*index);
        *index = highest;
    }
    for proposal in &history.proposals {
        let Some((_, index)) = proposal.acknowledged else { continue };
        let before = ended.partition_point(|(at, _)| *at < proposal.began);
        if let Some((at, higher)) = before.checked_sub(1).and_then(|last| ended.get(last))
            && *higher >= index
        {
            let (change, began) = (&proposal.change, proposal.began);
            return Err(format!(
                "{change:?} began at {began} ms and is entry {index}; entry {higher} was acknowledged by {at} ms"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Change, Proposal};

    #[test]
    fn a_change_before_one_that_was_over_is_seen() {
        let proposal = |began, at, index| Proposal {
            change: Change::Create("x".into()),
            began,
            acknowledged: Some((at, index)),
            answer: String::new(),
        };
        let mut history = History::default();
        history.proposals.extend([proposal(1, 5, 3), proposal(4, 9, 2), proposal(6, 8, 4)]);
        assert_eq!(check(&history), Ok(()));
        history.proposals.push(proposal(10, 12, 4));
        assert!(check(&history).is_err());
    }
}
