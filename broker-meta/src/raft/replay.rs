//! What a log comes to: its entries carried out once more, one after the other, beside the node that wrote it.

use std::path::Path;

use super::machine::State;
use super::store::{Begun, LogStore, OpenError, Writing};
use crate::catalog::{Catalog, CatalogEvent};

/// Carries out the entries that a node which does not run has in a directory: its snapshot's state first, then what it knows to be committed. `seen` is told the
/// index of each entry, what its commands did, and the catalog afterwards.
pub fn replay(directory: &Path, mut seen: impl FnMut(u64, &[Vec<CatalogEvent>], &Catalog)) -> Result<(), OpenError> {
    let (store, Begun { .. }) = LogStore::open(directory, Writing::Here, 1)?;
    let mut state = State::read(directory)?;
    let begun = state.last().map_or(0, |last| last.index);
    let committed = store.committed()?.map_or(0, |committed| committed.index);
    let entries = store.entries(begun + 1..=committed.max(begun));
    store.close();
    for entry in entries? {
        let index = entry.log_id.index;
        let outcomes = state.take(entry).map(|(_, outcomes)| outcomes).unwrap_or_default();
        seen(index, &outcomes, state.catalog());
    }
    Ok(())
}
