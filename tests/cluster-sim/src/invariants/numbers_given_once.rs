//! A number in the cluster is that of one node for ever.

use std::collections::BTreeMap;

use crate::history::History;

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    let mut holders = BTreeMap::new();
    for (node, cluster, number) in &history.belonged {
        let holder = holders.entry((cluster, number)).or_insert(node);
        if *holder != node {
            return Err(format!("number {number} is that of {holder} and of {node}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_given_twice_is_seen() {
        let mut history = History::default();
        history.belonged.extend([("a".into(), "1".into(), 1), ("b".into(), "1".into(), 2)]);
        assert_eq!(check(&history), Ok(()));
        history.belonged.push(("b".into(), "1".into(), 1));
        assert!(check(&history).is_err());
    }
}
