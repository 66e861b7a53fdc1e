//! Rules that are broken on purpose, so that it is seen that the simulation notices.

use crate::socket::Tampering;

/// A rule that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A node whose disk was emptied founds a cluster although it is told of others.
    EmptiedFounds,
    /// A node whose disk was emptied votes on under the number it had.
    EmptiedVotes,
    /// What nodes say of themselves is not spread.
    FactsStay,
    /// A copy of a disk is put back after its node has started once more since.
    OldDisk,
    /// The shard is not told of one entry in twenty.
    FeedSkips,
    /// When a link comes up it is not said which exclusive queues there are.
    AnnouncementsStay,
    /// Of two publishes on a link, one behind the other, the second comes first.
    LinksSwap,
    /// A disk says that messages are synced which it loses.
    SyncLies,
    /// What is delivered or got over a link is not marked as redelivered.
    MarksLost,
    /// What is to be rolled back is committed.
    RollbackCommits,
    /// Direct replies are lost between nodes.
    RepliesLost,
    /// That there is nothing to get in a queue elsewhere is not said.
    GetsUnanswered,
}

impl Broken {
    /// What befalls what is said on links.
    pub(crate) fn tampering(self) -> Option<Tampering> {
        match self {
            Broken::AnnouncementsStay => Some(Tampering::KeepsAnnouncements),
            Broken::LinksSwap => Some(Tampering::SwapsPublishes),
            Broken::MarksLost => Some(Tampering::LosesMarks),
            Broken::RepliesLost => Some(Tampering::LosesReplies),
            Broken::GetsUnanswered => Some(Tampering::LeavesGets),
            _ => None,
        }
    }

    /// All of them by name.
    pub const ALL: &[(&str, Broken)] = &[
        ("emptied-founds", Broken::EmptiedFounds),
        ("emptied-votes", Broken::EmptiedVotes),
        ("old-disk", Broken::OldDisk),
        ("facts-stay", Broken::FactsStay),
        ("feed-skips", Broken::FeedSkips),
        ("announcements-stay", Broken::AnnouncementsStay),
        ("links-swap", Broken::LinksSwap),
        ("sync-lies", Broken::SyncLies),
        ("marks-lost", Broken::MarksLost),
        ("rollback-commits", Broken::RollbackCommits),
        ("replies-lost", Broken::RepliesLost),
        ("gets-unanswered", Broken::GetsUnanswered),
    ];

    /// The one of this name.
    pub fn of(name: &str) -> Option<Broken> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, broken)| *broken)
    }
}
