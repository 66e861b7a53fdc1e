//! The catalog is linearizable: the entries of the log, applied in order to an empty catalog, give what every node has, and each change did what its client
//! was told.

use std::collections::BTreeMap;

use broker_meta::Catalog;

use crate::history::{Entry, History, digest};

/// See the module's page.
pub fn check(history: &History) -> Result<(), String> {
    if let Some((node, index)) = history.forked.first() {
        return Err(format!("{node} applied another entry {index} than the node that applied it first"));
    }
    let mut catalog = Catalog::default();
    let mut origins = BTreeMap::new();
    let mut cluster = None;
    for ((of, index), entry) in &history.entries {
        // Of a second cluster another invariant tells.
        if cluster.get_or_insert(of) != &of {
            break;
        }
        let did = apply(&mut catalog, &mut origins, entry);
        if did != entry.outcomes {
            return Err(format!("entry {index} did {:?}, and replayed {did:?}", entry.outcomes));
        }
        let told = |acknowledged: Option<(u64, u64)>| acknowledged.is_some_and(|(_, at)| at == *index);
        let proposals = history.proposals.iter().filter(|proposal| told(proposal.acknowledged));
        for proposal in proposals {
            if !did.contains(&proposal.answer) {
                let (change, answer) = (&proposal.change, &proposal.answer);
                return Err(format!(
                    "{change:?} is in entry {index}, which did {did:?}, and its client was told {answer}"
                ));
            }
        }
        let replayed = digest(&catalog);
        let applied = history.applied.get(&(of.clone(), *index));
        if let Some((node, _)) = applied.into_iter().flatten().find(|(_, digest)| *digest != replayed) {
            return Err(format!("after entry {index} {node} has another catalog than the replayed one"));
        }
    }
    Ok(())
}

/// What an entry does: nothing if its proposal has been applied before.
fn apply(catalog: &mut Catalog, origins: &mut BTreeMap<u64, (u64, u64)>, entry: &Entry) -> Vec<String> {
    let (node, start, number) = entry.origin;
    if origins.get(&node).is_some_and(|last| (start, number) <= *last) {
        return Vec::new();
    }
    origins.insert(node, (start, number));
    let apply = |command| format!("{:?}", catalog.apply(catalog.index() + 1, command));
    entry.commands.iter().map(apply).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use broker_meta::command;

    use super::*;
    use crate::history::{Change, Proposal};

    #[test]
    fn a_catalog_or_an_answer_that_does_not_follow_from_the_log_is_seen() {
        let mut history = History::default();
        let mut catalog = Catalog::default();
        let mut origins = BTreeMap::new();
        for index in 1..=2 {
            let commands = vec![command::create_vhost(&format!("v{index}"), "", &[])];
            let mut entry = Entry { origin: (1, 1, index), commands, outcomes: Vec::new() };
            entry.outcomes = apply(&mut catalog, &mut origins, &entry);
            history.entries.insert(("c".into(), index + 4), entry);
            history.applied.insert(("c".into(), index + 4), vec![("a".into(), digest(&catalog))]);
        }
        // The same proposal again does nothing.
        history
            .entries
            .insert(("c".into(), 7), Entry { outcomes: Vec::new(), ..history.entries[&("c".into(), 6)].clone() });
        let answer = history.entries[&("c".into(), 5)].outcomes[0].clone();
        let change = Change::Create("v1".into());
        history.proposals.push(Proposal { change, began: 1, acknowledged: Some((2, 5)), answer });
        assert_eq!(check(&history), Ok(()));
        let with = |change: fn(&mut History)| {
            let mut history = history.clone();
            change(&mut history);
            check(&history)
        };
        assert!(with(|history| history.forked.push(("b".into(), 5))).is_err());
        assert!(with(|history| history.proposals[0].answer = "something else".into()).is_err());
        assert!(with(|history| drop(history.entries.remove(&("c".into(), 5)))).is_err());
        assert!(with(|history| history.applied.get_mut(&("c".into(), 6)).unwrap()[0].1 += 1).is_err());
    }
}
