//! All nodes that are listed to each other belong to one cluster, whatever happens to their disks.

use crate::history::History;

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    let Some((first, cluster, _)) = history.belonged.first() else { return Ok(()) };
    match history.belonged.iter().find(|(_, other, _)| other != cluster) {
        Some((node, other, _)) => Err(format!("{first} belongs to {cluster}, {node} to {other}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_cluster_is_seen() {
        let mut history = History::default();
        history.belonged.extend([("a".into(), "1".into(), 1), ("b".into(), "1".into(), 2)]);
        assert_eq!(check(&history), Ok(()));
        history.belonged.push(("b".into(), "2".into(), 1));
        assert!(check(&history).is_err());
    }
}
