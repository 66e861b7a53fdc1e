//! A while after the heal a node's clients are told of an alarm exactly if another node has one.

use crate::history::History;

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    for (node, standing) in &history.end {
        let Some(standing) = standing else { continue };
        let others = history.end.iter().filter(|(other, _)| *other != node);
        let is_due = others.filter_map(|(_, other)| other.as_ref()).any(|other| other.alarm);
        if is_due != standing.alarm_elsewhere {
            let told = standing.alarm_elsewhere;
            return Err(format!("that another node has an alarm is {is_due}, and {node} was told that it is {told}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Standing;

    #[test]
    fn an_alarm_nobody_heard_of_or_that_is_over_is_seen() {
        let check = |alarm, alarm_elsewhere| {
            let mut history = History::default();
            history.end.insert("a".into(), Some(Standing { alarm, ..Standing::default() }));
            history.end.insert("b".into(), Some(Standing { alarm_elsewhere, ..Standing::default() }));
            check(&history)
        };
        assert_eq!((check(true, true), check(false, false)), (Ok(()), Ok(())));
        assert!(check(true, false).is_err());
        assert!(check(false, true).is_err());
    }
}
