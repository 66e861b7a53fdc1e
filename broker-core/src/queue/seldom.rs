//! State that most queues do not have: a pointer while it is as at the beginning, on the heap from its first change on.
//!
//! A node may have a hundred thousand queues in which nothing happens; each of them would pay for the room of everything that could.

use std::fmt;
use std::ops::{Deref, DerefMut};

/// See the module's page. To read it costs no allocation; any access that could change it makes the room.
pub(super) struct Seldom<T>(Option<Box<T>>);

/// What something is like as long as nothing has happened.
pub(super) trait AtFirst: Default + 'static {
    /// The same as the default, for all to look at.
    fn at_first() -> &'static Self;
}

/// As what it stands for: whether there is room made for it is nobody's business.
impl<T: AtFirst + fmt::Debug> fmt::Debug for Seldom<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Seldom(None)
    }
}

impl<T> From<T> for Seldom<T> {
    fn from(value: T) -> Self {
        Seldom(Some(Box::new(value)))
    }
}

impl<T: AtFirst> Deref for Seldom<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => T::at_first(),
        }
    }
}

impl<T: AtFirst> DerefMut for Seldom<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_with(Box::default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl AtFirst for Vec<u8> {
        fn at_first() -> &'static Self {
            static NONE: Vec<u8> = Vec::new();
            &NONE
        }
    }

    #[test]
    fn room_is_made_by_the_first_change() {
        let mut seldom: Seldom<Vec<u8>> = Seldom::default();
        assert!(seldom.is_empty() && seldom.0.is_none());
        assert_eq!(size_of::<Seldom<Vec<u8>>>(), size_of::<usize>());
        seldom.push(1);
        assert_eq!(**seldom, [1]);
    }
}
