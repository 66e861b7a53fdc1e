//! Direct exchanges: the routing key equals the binding key.

use std::sync::Arc;

use imbl::GenericHashMap;
use imbl::shared_ptr::DefaultSharedPtr;

use super::targets::{Target, Targets};

#[derive(Clone, Debug, Default)]
pub(crate) struct DirectTable {
    keys: GenericHashMap<Arc<[u8]>, Targets, foldhash::quality::RandomState, DefaultSharedPtr>,
}

impl DirectTable {
    pub fn add(&mut self, key: &[u8], target: Target) {
        match self.keys.get_mut(key) {
            Some(targets) => targets.add(target),
            None => {
                self.keys.insert(Arc::from(key), Targets::One(target, 1));
            }
        }
    }

    pub fn remove(&mut self, key: &[u8], target: &Target) {
        if let Some(targets) = self.keys.get_mut(key) {
            targets.remove(target);
            if targets.is_empty() {
                self.keys.remove(key);
            }
        }
    }

    pub fn route<'t>(&'t self, key: &[u8], found: &mut dyn FnMut(&'t Target)) {
        if let Some(targets) = self.keys.get(key) {
            targets.for_each(found);
        }
    }
}
