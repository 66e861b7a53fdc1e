//! What must hold of every history, each in a file of its own, with a history of which it does not hold.

pub mod acknowledged_in_order;
pub mod alarms_reach_everyone;
pub mod all_is_answered;
pub mod confirmed_not_lost;
pub mod convergence;
pub mod exclusive_names_unique;
pub mod links_ordered;
pub mod marked_when_again;
pub mod nothing_acknowledged_lost;
pub mod nothing_passed_over;
pub mod numbers_given_once;
pub mod one_cluster;
pub mod one_history;
pub mod replayed;
pub mod replies_come_home;
pub mod rolled_back_is_nowhere;

use crate::history::History;

/// An invariant: what is wrong, if something is.
pub type Check = fn(&History) -> Result<(), String>;

/// All of them by name. The last ones are about the time after the heal.
pub const ALL: &[(&str, Check)] = &[
    ("one_cluster", one_cluster::check),
    ("numbers_given_once", numbers_given_once::check),
    ("one_history", one_history::check),
    ("nothing_passed_over", nothing_passed_over::check),
    ("acknowledged_in_order", acknowledged_in_order::check),
    ("replayed", replayed::check),
    ("exclusive_names_unique", exclusive_names_unique::check),
    ("marked_when_again", marked_when_again::check),
    ("links_ordered", links_ordered::check),
    ("rolled_back_is_nowhere", rolled_back_is_nowhere::check),
    ("convergence", convergence::check),
    ("nothing_acknowledged_lost", nothing_acknowledged_lost::check),
    ("confirmed_not_lost", confirmed_not_lost::check),
    ("replies_come_home", replies_come_home::check),
    ("all_is_answered", all_is_answered::check),
    ("alarms_reach_everyone", alarms_reach_everyone::check),
];

/// The first that does not hold.
pub fn check(history: &History) -> Result<(), String> {
    ALL.iter().try_for_each(|(name, check)| check(history).map_err(|what| format!("{name}: {what}")))
}
