//! From when it serves on, the shard of a node is told of every entry, as every other is, or of a snapshot that stands for it.

use crate::history::History;

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    for (node, cluster, told) in &history.told {
        for pair in told.windows(2) {
            let [before, next] = pair else { continue };
            let between = (cluster.clone(), before.index + 1)..(cluster.clone(), next.index.max(before.index + 1));
            let mut due = history.entries.range(between);
            if let Some(((_, missed), _)) = due.next().filter(|_| !next.is_snapshot) {
                let (before, next) = (before.index, next.index);
                return Err(format!("{node} was told of entries {before} and {next}, and not of entry {missed}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Entry, Told};

    #[test]
    fn an_entry_passed_over_is_seen() {
        let told = |indexes: [u64; 2], is_snapshot| indexes.map(|index| Told { index, is_snapshot }).into();
        let mut history = History::default();
        for index in [3, 4, 6] {
            history.entries.insert(("1".into(), index), Entry::default());
        }
        history.told.push(("b".into(), "1".into(), told([4, 6], false)));
        history.told.push(("c".into(), "1".into(), told([3, 6], true)));
        assert_eq!(check(&history), Ok(()));
        history.told.push(("d".into(), "1".into(), told([3, 6], false)));
        assert!(check(&history).is_err());
    }
}
