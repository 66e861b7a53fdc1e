//! Which crate may stand on which.

/// A crate of the workspace, the crates of the workspace that it may depend on, and packages it must not ask for. What its
/// other dependencies bring along is theirs: amq-protocol brings a whole TCP stack that broker-amqp never calls.
struct Floor {
    name: &'static str,
    may_use: &'static [&'static str],
    never: &'static [&'static str],
}

/// What does input and output, and formats that live in other crates.
const FOREIGN: &[&str] = &["tokio", "mio", "socket2", "signal-hook", "serde_json", "prost"];

const FLOORS: &[Floor] = &[
    Floor { name: "broker-core", may_use: &[], never: FOREIGN },
    Floor { name: "proto", may_use: &[], never: &[] },
    Floor { name: "broker-amqp", may_use: &["broker-core"], never: FOREIGN },
    Floor { name: "broker-gm", may_use: &["broker-core"], never: FOREIGN },
    // Raft brings tokio; `sources` keeps it inside raft/.
    Floor { name: "broker-meta", may_use: &["broker-core", "proto"], never: &["mio", "serde_json"] },
    Floor { name: "broker-mgmt", may_use: &["proto"], never: &[] },
    Floor { name: "broker-ctl", may_use: &["proto"], never: &[] },
    Floor {
        name: "broker-server",
        may_use: &["broker-core", "proto", "broker-amqp", "broker-gm", "broker-meta", "broker-mgmt", "broker-ctl"],
        never: &[],
    },
];

/// The crates under tests/: they may use anything, and nothing but one another may use them.
const TESTS: &[&str] = &["harness", "access", "sim", "cluster-sim", "e2e", "conformance", "clients", "bench", "tidy"];

/// A crate of the workspace and what its Cargo.toml asks for.
#[derive(Debug)]
pub struct Member<'a> {
    /// Its name.
    pub name: &'a str,
    /// Crates of the workspace, for any kind of build.
    pub uses: Vec<&'a str>,
    /// Every package of its normal build.
    pub links: Vec<&'a str>,
}

/// Edges that the floors do not allow, crates that have no floor, and packages asked for where they must not be.
pub fn violations(members: &[Member<'_>]) -> Vec<String> {
    members.iter().flat_map(|member| member_violations(member)).collect()
}

fn member_violations(member: &Member<'_>) -> Vec<String> {
    let name = member.name;
    if TESTS.contains(&name) {
        return Vec::new();
    }
    let Some(floor) = FLOORS.iter().find(|floor| floor.name == name) else {
        return vec![format!("{name} has no floor: give it one in tests/tidy/src/floors.rs and in ARCHITECTURE.md")];
    };
    let edges = member.uses.iter().filter(|used| !floor.may_use.contains(used));
    let edges = edges.map(|used| format!("{name} must not depend on {used}"));
    let linked = floor.never.iter().filter(|never| member.links.contains(*never));
    edges.chain(linked.map(|never| format!("{name} must not ask for {never}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, uses: &[&str], links: &[&str]) -> Vec<String> {
        violations(&[Member { name, uses: uses.to_vec(), links: links.to_vec() }])
    }

    #[test]
    fn downward_edges_pass() {
        assert_eq!(check("broker-server", &["broker-amqp", "broker-core"], &["tokio", "mio"]), Vec::<String>::new());
        assert_eq!(check("sim", &["broker-core", "harness"], &["tokio"]), Vec::<String>::new());
    }

    #[test]
    fn upward_and_sideward_edges_are_found() {
        assert_eq!(check("broker-core", &["broker-amqp"], &[]), ["broker-core must not depend on broker-amqp"]);
        assert_eq!(check("broker-amqp", &["broker-gm"], &[]), ["broker-amqp must not depend on broker-gm"]);
        assert_eq!(check("broker-server", &["harness"], &[]), ["broker-server must not depend on harness"]);
    }

    #[test]
    fn runtimes_under_the_cores_are_found() {
        assert_eq!(check("broker-amqp", &[], &["bytes", "tokio"]), ["broker-amqp must not ask for tokio"]);
    }

    #[test]
    fn a_crate_without_a_floor_is_found() {
        assert_eq!(check("newcomer", &[], &[]).len(), 1);
    }
}
