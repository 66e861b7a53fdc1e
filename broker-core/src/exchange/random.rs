//! Random exchanges: one of the bindings, whatever the keys. The driver throws the dice.

use imbl::{OrdMap, OrdSet};

use super::targets::Target;

/// Bindings at numbered places without a gap, so that any of them is found at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct RandomTable {
    places: OrdMap<u64, Target>,
    /// The places of each target: as many as it has bindings.
    by_target: OrdSet<(Target, u64)>,
}

impl RandomTable {
    pub fn add(&mut self, target: Target) {
        let place = self.places.len() as u64;
        self.places.insert(place, target.clone());
        self.by_target.insert((target, place));
    }

    /// The last binding takes the place of the one that goes.
    pub fn remove(&mut self, target: &Target) {
        let Some(found) = self.by_target.range((target.clone(), 0)..).next().filter(|(held, _)| held == target) else {
            return;
        };
        let found = found.clone();
        let Some((last_place, last)) = self.places.get_max().map(|(place, last)| (*place, last.clone())) else {
            return;
        };
        let place = found.1;
        self.by_target.remove(&found);
        self.places.remove(&last_place);
        if place != last_place {
            self.by_target.remove(&(last.clone(), last_place));
            self.by_target.insert((last.clone(), place));
            self.places.insert(place, last);
        }
    }

    pub fn route<'t>(&'t self, dice: u64, found: &mut dyn FnMut(&'t Target)) {
        // The upper half of the product is as evenly spread as the dice, without a division.
        let place = ((u128::from(dice) * self.places.len() as u128) >> 64) as u64;
        self.places.get(&place).into_iter().for_each(found);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::consistent_hash::mixed;
    use super::*;
    use crate::name::QueueId;

    fn queue(id: u64) -> Target {
        Target::Queue(QueueId(id))
    }

    fn routed(table: &RandomTable, dice: u64) -> Vec<Target> {
        let mut found = Vec::new();
        table.route(dice, &mut |target| found.push(target.clone()));
        found
    }

    #[test]
    fn each_binding_has_the_same_chance() {
        let mut table = RandomTable::default();
        assert!(routed(&table, 7).is_empty());
        (0..9).for_each(|_| table.add(queue(0)));
        table.add(queue(1));
        let second = (0..10_000_u64).filter(|&throw| routed(&table, mixed(throw)) == [queue(1)]).count();
        assert!((850..1150).contains(&second), "{second}");
        assert_eq!((routed(&table, 0), routed(&table, u64::MAX)), (vec![queue(0)], vec![queue(1)]));
    }

    proptest! {
        #[test]
        fn places_have_no_gap_and_nothing_is_left(steps in prop::collection::vec((any::<bool>(), 0..5_u64), 0..60)) {
            let mut table = RandomTable::default();
            let mut model: Vec<u64> = Vec::new();
            for (add, id) in steps {
                if add {
                    table.add(queue(id));
                    model.push(id);
                } else {
                    table.remove(&queue(id));
                    model.iter().position(|held| *held == id).map(|at| model.swap_remove(at));
                }
                let mut held: Vec<Target> = table.places.values().cloned().collect();
                let mut expected: Vec<Target> = model.iter().map(|id| queue(*id)).collect();
                held.sort();
                expected.sort();
                prop_assert_eq!(held, expected);
                prop_assert!(table.places.keys().copied().eq(0..model.len() as u64));
                prop_assert_eq!(table.by_target.len(), model.len());
                prop_assert!(table.places.iter().all(|(place, held)| table.by_target.contains(&(held.clone(), *place))));
            }
        }
    }
}
