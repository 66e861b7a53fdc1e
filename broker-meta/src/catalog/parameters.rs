//! Runtime parameters: what an operator sets for a component. They are kept and given back as they came; what they mean is the component's.

use std::sync::Arc;

use broker_core::name::VhostName;
use imbl::OrdMap;

/// A parameter's component, name and value together may be this long, in octets.
pub const PARAMETER_MAX_BYTES: usize = 64 * 1024;
/// There may be this many parameters.
pub const PARAMETERS_MAX: usize = 10_000;

/// All parameters. A copy costs a few pointers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(OrdMap<ParameterKey, Arc<str>>);

/// Which parameter. Global ones come before those of vhosts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParameterKey {
    /// Where it counts; none: it is global.
    pub vhost: Option<VhostName>,
    /// Whose it is; empty if it is global.
    pub component: String,
    /// Its name.
    pub name: String,
}

impl Parameters {
    /// The value of a parameter: JSON, as it came.
    pub fn get(&self, key: &ParameterKey) -> Option<&str> {
        self.0.get(key).map(|value| &**value)
    }

    /// All parameters with their values: global ones, then by vhost, component and name.
    pub fn iter(&self) -> impl Iterator<Item = (&ParameterKey, &str)> {
        self.0.iter().map(|(key, value)| (key, &**value))
    }

    /// Whether there is room for this one: it exists, or there are fewer than [`PARAMETERS_MAX`].
    pub(super) fn has_room_for(&self, key: &ParameterKey) -> bool {
        self.0.len() < PARAMETERS_MAX || self.0.contains_key(key)
    }

    pub(super) fn set(&mut self, key: ParameterKey, value: &str) {
        self.0.insert(key, value.into());
    }

    /// `false` if there is no such parameter.
    pub(super) fn clear(&mut self, key: &ParameterKey) -> bool {
        self.0.remove(key).is_some()
    }

    /// Takes those of a vhost that goes.
    pub(super) fn remove_vhost(&mut self, vhost: &VhostName) {
        let gone = |key: &&ParameterKey| key.vhost.as_ref() == Some(vhost);
        let keys: Vec<ParameterKey> = self.0.keys().filter(gone).cloned().collect();
        for key in keys {
            self.0.remove(&key);
        }
    }
}
