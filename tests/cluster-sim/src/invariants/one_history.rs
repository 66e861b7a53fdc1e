//! The catalog has one history: after an entry it is the same on every node that applied it, and no node goes back.

use crate::history::History;

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    if let Some((node, came, after)) = history.backwards.first() {
        return Err(format!("{node} applied entry {came} after entry {after}"));
    }
    for ((_, index), catalogs) in &history.applied {
        let Some((first, catalog)) = catalogs.first() else { continue };
        if let Some((other, _)) = catalogs.iter().find(|(_, other)| other != catalog) {
            return Err(format!("after entry {index} {first} and {other} have different catalogs"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn catalogs_that_part_are_seen() {
        let mut history = History::default();
        history.applied.insert(("1".into(), 7), vec![("a".into(), 1), ("b".into(), 1)]);
        assert_eq!(check(&history), Ok(()));
        let mut parted = history.clone();
        parted.applied.insert(("1".into(), 8), vec![("a".into(), 1), ("b".into(), 2)]);
        assert!(check(&parted).is_err());
        history.backwards.push(("a".into(), 6, 7));
        assert!(check(&history).is_err());
    }
}
