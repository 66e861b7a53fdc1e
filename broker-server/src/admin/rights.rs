//! What the tags of a user let it do through the admin service, where it comes from elsewhere: RabbitMQ's rules for its management plugin.
//!
//! Everything that can be asked is a [`Deed`], and [`TABLE`] is the one place that says who may do it. What is not allowed there is refused.

use broker_core::access::User;

/// What is asked for, as far as rights go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// To see the state of nodes and of the cluster.
    SeeNodes,
    /// To see vhosts, their limits, exchanges, queues and bindings.
    SeeObjects,
    /// To see connections, channels and consumers.
    SeeClients,
    /// To see policies and parameters of vhosts.
    SeePolicies,
    /// To see users, their limits and their permissions.
    SeeUsers,
    /// To set and delete policies and parameters of vhosts.
    ChangePolicies,
    /// To see, set and delete global parameters.
    GlobalParameters,
    /// To purge and delete queues.
    ChangeQueues,
    /// To close connections.
    CloseConnections,
    /// Everything else: users, permissions, vhosts, limits, operator policies, definitions, alarms, nodes, the cluster.
    Administer,
}

/// How far a right goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// It is not there.
    Nothing,
    /// In the vhosts the user has permissions in; of clients, the user's own; of queues, as its permissions say.
    Own,
    /// All there is.
    Everything,
}

/// The tags that count, in the order of the table's columns.
pub const TAGS: [&str; 4] = ["management", "policymaker", "monitoring", "administrator"];

/// Who may do what.
const TABLE: [(Deed, [Extent; TAGS.len()]); 10] = {
    use Deed::*;
    use Extent::{Everything as All, Nothing as No, Own};
    [
        //                  management, policymaker, monitoring, administrator
        (SeeNodes, [No, No, All, All]),
        (SeeObjects, [Own, Own, All, All]),
        (SeeClients, [Own, Own, All, All]),
        (SeePolicies, [No, Own, No, All]),
        (SeeUsers, [No, No, No, All]),
        (ChangePolicies, [No, Own, No, All]),
        (GlobalParameters, [No, All, No, All]),
        (ChangeQueues, [Own, Own, Own, All]),
        (CloseConnections, [Own, Own, Own, All]),
        (Administer, [No, No, No, All]),
    ]
};

/// How far a user may go; each of its tags gives its part.
#[must_use]
pub fn extent(user: &User, deed: Deed) -> Extent {
    let row = TABLE.iter().find(|(listed, _)| *listed == deed);
    let given = row.into_iter().flat_map(|(_, extents)| TAGS.iter().zip(extents));
    given.filter(|(tag, _)| user.has_tag(tag)).map(|(_, extent)| *extent).max().unwrap_or(Extent::Nothing)
}

/// Whether a user may log in at all.
#[must_use]
pub fn has_a_tag(user: &User) -> bool {
    TAGS.iter().any(|tag| user.has_tag(tag))
}

/// The tags that let a user do it, at least in part.
#[must_use]
pub fn tags_for(deed: Deed) -> Vec<&'static str> {
    let row = TABLE.iter().find(|(listed, _)| *listed == deed);
    let given = row.into_iter().flat_map(|(_, extents)| TAGS.iter().zip(extents));
    given.filter(|(_, extent)| **extent > Extent::Nothing).map(|(tag, _)| *tag).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Deed; 10] = [
        Deed::SeeNodes,
        Deed::SeeObjects,
        Deed::SeeClients,
        Deed::SeePolicies,
        Deed::SeeUsers,
        Deed::ChangePolicies,
        Deed::GlobalParameters,
        Deed::ChangeQueues,
        Deed::CloseConnections,
        Deed::Administer,
    ];

    fn user(tags: &[&str]) -> User {
        User { name: "ann".into(), password: None, tags: tags.iter().map(|tag| (*tag).to_owned()).collect() }
    }

    #[test]
    fn every_deed_has_one_row() {
        for deed in ALL {
            assert_eq!(TABLE.iter().filter(|(listed, _)| *listed == deed).count(), 1, "{deed:?}");
        }
        assert_eq!(TABLE.len(), ALL.len());
    }

    #[test]
    fn an_administrator_may_everything_and_who_has_no_tag_nothing() {
        for deed in ALL {
            assert_eq!(extent(&user(&["administrator"]), deed), Extent::Everything, "{deed:?}");
            for tags in [&[][..], &["impersonator", "Administrator", "admin"]] {
                assert_eq!(extent(&user(tags), deed), Extent::Nothing, "{deed:?}");
            }
        }
        assert!(has_a_tag(&user(&["x", "management"])) && !has_a_tag(&user(&["x"])));
    }

    #[test]
    fn each_tag_gives_what_it_gives_in_rabbitmq() {
        let of = |tag| ALL.map(|deed| extent(&user(&[tag]), deed));
        let (management, policymaker, monitoring) = (of("management"), of("policymaker"), of("monitoring"));
        for (place, deed) in ALL.into_iter().enumerate() {
            assert!(policymaker[place] >= management[place], "policymaker holds management: {deed:?}");
            assert!(monitoring[place] >= management[place], "so does monitoring: {deed:?}");
            let changes = matches!(deed, Deed::ChangePolicies | Deed::GlobalParameters | Deed::Administer);
            assert!(!changes || monitoring[place] == Extent::Nothing, "monitoring changes nothing: {deed:?}");
            assert!(!changes || management[place] == Extent::Nothing, "management changes nothing: {deed:?}");
        }
        assert_eq!(extent(&user(&["monitoring"]), Deed::CloseConnections), Extent::Own, "only the user's own");
        assert_eq!(extent(&user(&["management"]), Deed::SeeNodes), Extent::Nothing);
        assert_eq!(extent(&user(&["policymaker"]), Deed::ChangePolicies), Extent::Own);
    }

    #[test]
    fn tags_add_up() {
        let both = user(&["monitoring", "policymaker"]);
        assert_eq!(extent(&both, Deed::SeeNodes), Extent::Everything);
        assert_eq!(extent(&both, Deed::SeePolicies), Extent::Own);
        assert_eq!(tags_for(Deed::SeePolicies), ["policymaker", "administrator"]);
        assert_eq!(tags_for(Deed::Administer), ["administrator"]);
    }
}
