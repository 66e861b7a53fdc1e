//! Fanout exchanges: every binding matches.

use super::targets::{Target, Targets};

#[derive(Clone, Debug, Default)]
pub(crate) struct FanoutTable {
    targets: Targets,
}

impl FanoutTable {
    pub fn add(&mut self, target: Target) {
        self.targets.add(target);
    }

    pub fn remove(&mut self, target: &Target) {
        self.targets.remove(target);
    }

    pub fn route<'t>(&'t self, found: &mut dyn FnMut(&'t Target)) {
        self.targets.for_each(found);
    }
}
