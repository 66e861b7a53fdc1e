//! Where bindings lead, each with the number of bindings that lead there.

use imbl::OrdMap;

use crate::name::{ExchangeName, QueueId};

/// Where a binding leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// To a queue.
    Queue(QueueId),
    /// To another exchange of the same vhost.
    Exchange(ExchangeName),
}

/// A small multiset of targets: most binding keys have one.
#[derive(Clone, Debug, Default)]
pub(super) enum Targets {
    #[default]
    None,
    One(Target, u32),
    Many(OrdMap<Target, u32>),
}

impl Targets {
    pub fn is_empty(&self) -> bool {
        matches!(self, Targets::None)
    }

    pub fn add(&mut self, target: Target) {
        match self {
            Targets::None => *self = Targets::One(target, 1),
            Targets::One(held, count) if *held == target => *count += 1,
            Targets::One(held, count) => {
                let first = (held.clone(), *count);
                *self = Targets::Many([first, (target, 1)].into_iter().collect());
            }
            Targets::Many(targets) => *targets.entry(target).or_insert(0) += 1,
        }
    }

    pub fn remove(&mut self, target: &Target) {
        match self {
            Targets::None => {}
            Targets::One(held, _) if held != target => {}
            Targets::One(_, count) if *count > 1 => *count -= 1,
            Targets::One(..) => *self = Targets::None,
            Targets::Many(targets) => {
                match targets.get_mut(target) {
                    Some(count) if *count > 1 => *count -= 1,
                    Some(_) => {
                        targets.remove(target);
                    }
                    None => {}
                }
                if targets.len() == 1
                    && let Some((held, &count)) = targets.get_min().map(|(held, count)| (held.clone(), count))
                {
                    *self = Targets::One(held, count);
                }
            }
        }
    }

    pub fn for_each<'t>(&'t self, found: &mut dyn FnMut(&'t Target)) {
        match self {
            Targets::None => {}
            Targets::One(target, _) => found(target),
            Targets::Many(targets) => targets.keys().for_each(found),
        }
    }
}
