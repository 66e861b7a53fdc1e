//! How many connections that have not logged in there may be, and which of them are listened to.
//!
//! A connection costs its peer nothing until it has logged in, so their number is bounded, in all and by address. What is above a bound is treated
//! by how much of it can be honest:
//!
//! * An address with its share already being listened to may be a load balancer with thousands of clients behind it that all come back at once. Its
//!   further connections *wait*: accepted, but not read, at the price of a file descriptor each. They are served in their order as the earlier ones
//!   log in or go.
//! * Those that wait count to the node's bound, but give way to other addresses. When there is no room for them they are closed, which their clients
//!   notice at once and may try again; leaving them in the kernel's queue would make all other addresses wait behind them.
//! * When the node *listens* to as many as it may, that is, when many addresses use up their shares, nobody is better than another: new connections
//!   stay in the kernel's queue and are accepted as soon as there is room.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};

/// Who is counted together: an IPv4 address, or an IPv6 network of 64 bits, as one host usually has all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Origin(IpAddr);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Origin(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into()),
            address => Origin(address),
        }
    }
}

/// The bounds: counts of connections, at least 1.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionLimits {
    /// Of the whole node, those that wait included.
    pub node: usize,
    /// Of one origin, those that wait not included.
    pub origin: usize,
}

/// See the module's page. `S` is a socket.
#[derive(Debug)]
pub struct Admission<S> {
    limits: AdmissionLimits,
    /// Connections that are listened to and have not logged in.
    served: usize,
    /// The same by origin; an origin without any has no entry, so there are no more entries than connections.
    by_origin: HashMap<Origin, usize>,
    /// Connections of origins that have their share; the node's limit bounds them.
    waiting: VecDeque<(Origin, S)>,
    /// The kernel's queue was not emptied.
    backlog_waits: bool,
    turned_away: u64,
}

/// What becomes of a new connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Admitted<S> {
    /// It is to be listened to. The other, if any, had to give way and is to be closed.
    Serve(S, Option<S>),
    /// It waits for its turn.
    Waits,
    /// There is no room for it: it is to be closed.
    NoRoom(S),
}

impl<S> Admission<S> {
    /// Nobody is there yet.
    #[must_use]
    pub fn new(limits: AdmissionLimits) -> Self {
        let AdmissionLimits { node, origin } = limits;
        Self {
            limits: AdmissionLimits { node: node.max(1), origin: origin.max(1) },
            served: 0,
            by_origin: HashMap::new(),
            waiting: VecDeque::new(),
            backlog_waits: false,
            turned_away: 0,
        }
    }

    /// Whether a connection may be taken from the kernel's queue. If not, [`Admission::wants_backlog`] tells when.
    pub fn accepts(&mut self) -> bool {
        self.backlog_waits = self.served >= self.limits.node;
        !self.backlog_waits
    }

    /// Whether connections were left in the kernel's queue for which there is room now.
    #[must_use]
    pub fn wants_backlog(&self) -> bool {
        self.backlog_waits && self.served < self.limits.node
    }

    /// There is no kernel's queue any more.
    pub fn forget_backlog(&mut self) {
        self.backlog_waits = false;
    }

    /// A connection was accepted.
    pub fn arrived(&mut self, origin: Origin, socket: S) -> Admitted<S> {
        let room = self.served + self.waiting.len() < self.limits.node;
        if self.by_origin.get(&origin).is_some_and(|&served| served >= self.limits.origin) {
            if room {
                self.waiting.push_back((origin, socket));
                return Admitted::Waits;
            }
            self.turned_away += 1;
            return Admitted::NoRoom(socket);
        }
        if self.served >= self.limits.node {
            self.turned_away += 1;
            return Admitted::NoRoom(socket);
        }
        // The one that came last waited in vain for the shortest time.
        let gives_way = if room { None } else { self.waiting.pop_back().map(|(_, socket)| socket) };
        self.turned_away += u64::from(gives_way.is_some());
        self.serve(origin);
        Admitted::Serve(socket, gives_way)
    }

    /// A connection that was listened to has logged in, or is gone. If another of the same origin waited, it is to be listened to now.
    #[must_use]
    pub fn left(&mut self, origin: Origin) -> Option<S> {
        self.served = self.served.saturating_sub(1);
        if let Some(served) = self.by_origin.get_mut(&origin) {
            *served = served.saturating_sub(1);
            if *served == 0 {
                self.by_origin.remove(&origin);
            }
        }
        // An origin whose connections wait has its full share until now, so nobody else's turn has come.
        let at = self.waiting.iter().position(|(other, _)| *other == origin)?;
        let (_, socket) = self.waiting.remove(at)?;
        self.serve(origin);
        Some(socket)
    }

    /// Connections that are listened to and have not logged in.
    #[must_use]
    pub fn served(&self) -> usize {
        self.served
    }

    /// Connections that wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Connections for which there was no room, since the start.
    #[must_use]
    pub fn turned_away(&self) -> u64 {
        self.turned_away
    }

    fn serve(&mut self, origin: Origin) {
        self.served += 1;
        *self.by_origin.entry(origin).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn origin(number: u8) -> Origin {
        Origin::from(IpAddr::from([10, 0, 0, number]))
    }

    #[test]
    fn one_origin_waits_for_itself_and_not_in_the_way_of_others() {
        let mut admission = Admission::new(AdmissionLimits { node: 4, origin: 2 });
        assert_eq!(admission.arrived(origin(1), 1), Admitted::Serve(1, None));
        assert_eq!(admission.arrived(origin(1), 2), Admitted::Serve(2, None));
        assert_eq!(admission.arrived(origin(1), 3), Admitted::Waits);
        assert_eq!(admission.arrived(origin(1), 4), Admitted::Waits);
        assert_eq!(admission.arrived(origin(1), 5), Admitted::NoRoom(5));
        assert_eq!(admission.arrived(origin(2), 6), Admitted::Serve(6, Some(4)), "the last that waits gives way");
        assert_eq!(admission.left(origin(1)), Some(3));
        assert_eq!(admission.left(origin(1)), None);
        assert_eq!((admission.served(), admission.waiting()), (2, 0));
    }

    #[test]
    fn a_full_node_leaves_connections_to_the_kernel_until_one_goes() {
        let mut admission = Admission::new(AdmissionLimits { node: 2, origin: 1 });
        assert!(admission.accepts());
        assert_eq!(admission.arrived(origin(1), 1), Admitted::Serve(1, None));
        assert_eq!(admission.arrived(origin(2), 2), Admitted::Serve(2, None));
        assert!(!admission.wants_backlog(), "nothing was left there yet");
        assert!(!admission.accepts());
        assert!(!admission.wants_backlog());
        assert_eq!(admission.left(origin(2)), None);
        assert!(admission.wants_backlog());
        assert!(admission.accepts());
        assert!(!admission.wants_backlog());
    }

    #[test]
    fn ten_thousand_clients_behind_one_address_get_in_by_trying_again() {
        let mut admission = Admission::new(AdmissionLimits { node: 1_024, origin: 128 });
        let mut outside: Vec<u32> = (0..10_000).collect();
        let mut inside = 0;
        for _ in 0..20 {
            let mut serving = VecDeque::new();
            let mut closed = Vec::new();
            for client in outside.drain(..) {
                match admission.arrived(origin(1), client) {
                    Admitted::Serve(client, None) => serving.push_back(client),
                    Admitted::Serve(_, Some(_)) => unreachable!("there is one origin"),
                    Admitted::Waits => {}
                    Admitted::NoRoom(client) => closed.push(client),
                }
            }
            while serving.pop_front().is_some() {
                inside += 1;
                serving.extend(admission.left(origin(1)));
            }
            outside = closed;
        }
        assert_eq!((inside, admission.served(), admission.waiting()), (10_000, 0, 0));
    }

    #[test]
    fn an_ipv6_network_is_one_origin_and_mapped_ipv4_addresses_are_ipv4() {
        let of = |text: &str| Origin::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("::ffff:10.0.0.1"), of("::ffff:10.0.0.2"));
    }

    proptest! {
        /// Whatever comes and goes: the bounds hold, the counts are right, and nobody waits whose origin has room.
        #[test]
        fn bounds_hold(
            node in 1..8_usize, share in 1..4_usize, steps in proptest::collection::vec((any::<bool>(), 0..5_u8), 0..200),
        ) {
            let mut admission = Admission::new(AdmissionLimits { node, origin: share });
            let mut served: Vec<u8> = Vec::new();
            for (arrives, number) in steps {
                if arrives {
                    if !admission.accepts() {
                        prop_assert_eq!(served.len(), node);
                        continue;
                    }
                    match admission.arrived(origin(number), number) {
                        Admitted::Serve(number, _) => served.push(number),
                        Admitted::Waits | Admitted::NoRoom(_) => {}
                    }
                } else if let Some(at) = served.iter().position(|&other| other == number) {
                    served.remove(at);
                    served.extend(admission.left(origin(number)));
                }
                prop_assert_eq!(admission.served(), served.len());
                prop_assert!(served.len() + admission.waiting() <= node);
                for number in 0..5 {
                    let count = served.iter().filter(|&&other| other == number).count();
                    prop_assert!(count <= share);
                    let waits = admission.waiting.iter().any(|(_, other)| *other == number);
                    prop_assert!(!waits || count == share);
                }
            }
        }
    }
}
