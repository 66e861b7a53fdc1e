//! Rules that are broken on purpose, so that it is seen that the simulation notices.

/// A rule that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A node whose disk was emptied founds a cluster although it is told of others.
    EmptiedFounds,
    /// A node whose disk was emptied votes on under the number it had.
    EmptiedVotes,
    /// What nodes say of themselves is not spread.
    FactsStay,
    /// The shard is not told of one entry in twenty.
    FeedSkips,
}

impl Broken {
    /// All of them by name.
    pub const ALL: &[(&str, Broken)] = &[
        ("emptied-founds", Broken::EmptiedFounds),
        ("emptied-votes", Broken::EmptiedVotes),
        ("facts-stay", Broken::FactsStay),
        ("feed-skips", Broken::FeedSkips),
    ];

    /// The one of this name.
    pub fn of(name: &str) -> Option<Broken> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, broken)| *broken)
    }
}
