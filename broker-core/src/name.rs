//! Names of things: cheap to clone, each kind its own type, so that a queue's name cannot be taken for an exchange's.
//!
//! AMQP allows any text of up to 255 octets. Routing keys are not names: they are octets, and stay octets.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

pub use crate::store::QueueId;

/// Names beginning with this are the broker's own: clients cannot declare new ones.
pub const RESERVED_PREFIX: &str = "amq.";

macro_rules! name {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                $name(Arc::from(text))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                $name(Arc::from(text))
            }
        }

        impl std::ops::Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// The name of a vhost.
    VhostName
}
name! {
    /// The name of an exchange, unique in its vhost; "" is the default exchange.
    ExchangeName
}
name! {
    /// The name of a queue, unique in its vhost.
    QueueName
}
name! {
    /// The name of a user.
    UserName
}

/// Which node of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// A queue or exchange name without carriage returns and line feeds, which RabbitMQ takes out of names that clients send.
pub fn without_line_breaks(name: &str) -> Cow<'_, str> {
    if name.contains(['\r', '\n']) { Cow::Owned(name.replace(['\r', '\n'], "")) } else { Cow::Borrowed(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_are_taken_out() {
        assert_eq!(without_line_breaks("a\r\nb\n"), "ab");
        assert!(matches!(without_line_breaks("plain"), Cow::Borrowed("plain")));
    }
}
