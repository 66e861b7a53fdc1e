//! Which broker a suite runs against.

use std::fmt;

/// RabbitMQ or ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Subject {
    /// Debian's RabbitMQ 3.10.8.
    #[value(name = "rabbitmq")]
    RabbitMq,
    /// Ours.
    Brokerd,
}

impl Subject {
    /// Both, the one that sets the measure first.
    pub const BOTH: [Subject; 2] = [Subject::RabbitMq, Subject::Brokerd];

    /// The word for it in arguments and file names.
    pub fn name(self) -> &'static str {
        match self {
            Subject::RabbitMq => "rabbitmq",
            Subject::Brokerd => "brokerd",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
