//! From when it serves on, the shard of a node is told of every entry, as every other is. (No log here is so long that a snapshot would stand for entries.)

use crate::history::History;

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    for (node, cluster, indexes) in &history.told {
        let (Some(first), Some(last)) = (indexes.first(), indexes.last()) else { continue };
        let due = history.applied.range((cluster.clone(), *first)..=(cluster.clone(), *last));
        if let Some(((_, missed), _)) = due.into_iter().find(|((_, index), _)| indexes.binary_search(index).is_err()) {
            return Err(format!("{node} was told of entries {first} to {last}, and not of entry {missed}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_passed_over_is_seen() {
        let mut history = History::default();
        for index in [3, 4, 6] {
            history.applied.insert(("1".into(), index), vec![("a".into(), 1)]);
        }
        history.told.push(("b".into(), "1".into(), vec![4, 6]));
        assert_eq!(check(&history), Ok(()));
        history.told.push(("c".into(), "1".into(), vec![3, 6]));
        assert!(check(&history).is_err());
    }
}
