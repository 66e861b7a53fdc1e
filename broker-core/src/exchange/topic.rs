//! Topic exchanges: binding keys are patterns of words separated by dots, in which `*` stands for one word and `#` for any number of words.
//!
//! Patterns share a trie: an edge per word, per `*` and per `#`. A routing key walks it as a set of places, word by word, instead of trying one
//! way after another: a place under a `#` stays in the set once it was reached. So the work is at most words times places in the trie, whatever
//! the patterns are (`#.#.#.#` cannot blow it up), and for usual patterns a handful of look-ups a word. A run of wildcards is kept in one form,
//! its `*` first and then one `#` (`#.*.#` is `*.#`), so that patterns made of nothing else share their places. Patterns chosen to have a key reach
//! very many places are matched another way: see [`PatternBits`].

use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use hashbrown::{HashMap, HashSet};
use imbl::GenericHashMap;
use imbl::shared_ptr::DefaultSharedPtr;
use smallvec::SmallVec;

use super::pattern_bits::PatternBits;
use super::targets::{Target, Targets};

type Map<K, V> = GenericHashMap<K, V, foldhash::quality::RandomState, DefaultSharedPtr>;

/// The trie. Nodes are numbered and lie in one map, edges by word in another: a trie of small maps would cost a kilobyte a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopicTable {
    nodes: Map<NodeNumber, Node>,
    edges: Map<Edge, NodeNumber>,
    next: NodeNumber,
    /// The same patterns compiled, once a walk was too long.
    bits: OnceLock<Arc<PatternBits<NodeNumber>>>,
}

type NodeNumber = u32;
/// The node every walk begins at. It is there even while the map does not hold it: then nothing is bound.
const ROOT: NodeNumber = 0;
/// Beyond so many places a hash set replaces the search through a list.
const FEW: usize = 16;
/// A walk that has come to so many places, counted anew with each word, is given up.
const WALK_MAX: usize = 4096;
/// The same once a walk was given up and the patterns are compiled.
const WALK_AGAIN_MAX: usize = 256;

#[derive(Clone, Debug, Default)]
struct Node {
    star: Option<NodeNumber>,
    hash: Option<NodeNumber>,
    /// Edges by word that leave from here.
    word_edges: u32,
    targets: Targets,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Edge {
    from: NodeNumber,
    word: Arc<[u8]>,
}

/// An edge to look for, without owning its word.
struct EdgeRef<'a> {
    from: NodeNumber,
    word: &'a [u8],
}

impl Hash for Edge {
    fn hash<H: Hasher>(&self, state: &mut H) {
        EdgeRef { from: self.from, word: &self.word }.hash(state);
    }
}

impl Hash for EdgeRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u32(self.from);
        self.word.hash(state);
    }
}

impl hashbrown::Equivalent<Edge> for EdgeRef<'_> {
    fn equivalent(&self, edge: &Edge) -> bool {
        self.from == edge.from && *self.word == *edge.word
    }
}

impl TopicTable {
    pub fn add(&mut self, pattern: &[u8], target: Target) {
        self.bits = OnceLock::new();
        let mut at = ROOT;
        for word in steps(pattern) {
            at = self.child_or_new(at, word);
        }
        self.nodes.entry(at).or_default().targets.add(target);
    }

    pub fn remove(&mut self, pattern: &[u8], target: &Target) {
        self.bits = OnceLock::new();
        let mut path: SmallVec<[(NodeNumber, &[u8]); 8]> = SmallVec::new();
        let mut at = ROOT;
        for word in steps(pattern) {
            path.push((at, word));
            let Some(child) = self.child(at, word) else { return };
            at = child;
        }
        if let Some(node) = self.nodes.get_mut(&at) {
            node.targets.remove(target);
        }
        // Nodes that lead nowhere any more go, from the leaf upwards.
        while self.nodes.get(&at).is_some_and(Node::is_needless) {
            self.nodes.remove(&at);
            let Some((parent, word)) = path.pop() else { return };
            self.remove_edge(parent, word);
            at = parent;
        }
    }

    pub fn route<'t>(&'t self, key: &[u8], found: &mut dyn FnMut(&'t Target)) {
        let places = if self.bits.get().is_some() { WALK_AGAIN_MAX } else { WALK_MAX };
        if !self.walk(key, places, found) {
            let bits = self.bits.get_or_init(|| Arc::new(PatternBits::new(self.patterns())));
            for node in bits.matching(words(key)).filter_map(|number| self.nodes.get(&number)) {
                node.targets.for_each(found);
            }
        }
    }

    /// Walks the trie; if that comes to more places than allowed, nothing is found and the result is `false`.
    fn walk<'t>(&'t self, key: &[u8], mut places_left: usize, found: &mut dyn FnMut(&'t Target)) -> bool {
        let Some(root) = self.nodes.get(&ROOT) else { return true };
        let mut current: SmallVec<[(NodeNumber, &'t Node); 16]> = SmallVec::new();
        let mut next = SmallVec::new();
        let mut lasting = Lasting::default();
        current.push((ROOT, root));
        self.reach_lasting(&current, &mut lasting);
        for word in words(key) {
            match places_left.checked_sub(current.len() + lasting.nodes.len()) {
                Some(left) => places_left = left,
                None => return false,
            }
            for &(number, node) in current.iter().chain(&lasting.nodes) {
                self.follow(number, node, word, &mut next);
            }
            std::mem::swap(&mut current, &mut next);
            next.clear();
            self.reach_lasting(&current, &mut lasting);
        }
        for (_, node) in current.iter().chain(&lasting.nodes) {
            node.targets.for_each(found);
        }
        true
    }

    /// All patterns that something is bound to, with their nodes.
    fn patterns(&self) -> impl Iterator<Item = (Vec<&[u8]>, NodeNumber)> {
        let mut parents: HashMap<NodeNumber, (NodeNumber, &[u8]), foldhash::fast::FixedState> = HashMap::default();
        for (&number, node) in &self.nodes {
            parents.extend(node.star.map(|child| (child, (number, &b"*"[..]))));
            parents.extend(node.hash.map(|child| (child, (number, &b"#"[..]))));
        }
        parents.extend(self.edges.iter().map(|(edge, &child)| (child, (edge.from, &*edge.word))));
        self.nodes.iter().filter(|(_, node)| !node.targets.is_empty()).map(move |(&number, _)| {
            let mut pattern: Vec<&[u8]> = Vec::new();
            let mut at = number;
            while let Some(&(parent, word)) = parents.get(&at) {
                pattern.push(word);
                at = parent;
            }
            pattern.reverse();
            (pattern, number)
        })
    }

    /// Adds the places one word leads to from a node. Each node has one parent, so no place is added twice.
    fn follow<'t>(
        &'t self,
        from: NodeNumber,
        node: &Node,
        word: &[u8],
        next: &mut SmallVec<[(NodeNumber, &'t Node); 16]>,
    ) {
        let by_word = if node.word_edges > 0 { self.edges.get(&EdgeRef { from, word }).copied() } else { None };
        for number in by_word.into_iter().chain(node.star) {
            next.extend(self.nodes.get(&number).map(|child| (number, child)));
        }
    }

    /// Adds the places that `#`, standing for no word, leads to from the current ones.
    fn reach_lasting<'t>(&'t self, current: &[(NodeNumber, &'t Node)], lasting: &mut Lasting<'t>) {
        let already = lasting.nodes.len();
        for (_, node) in current {
            lasting.add(node.hash, self);
        }
        let mut at = already;
        while let Some(&(_, node)) = lasting.nodes.get(at) {
            lasting.add(node.hash, self);
            at += 1;
        }
    }

    fn child(&self, from: NodeNumber, word: &[u8]) -> Option<NodeNumber> {
        match word {
            b"*" => self.nodes.get(&from)?.star,
            b"#" => self.nodes.get(&from)?.hash,
            _ => self.edges.get(&EdgeRef { from, word }).copied(),
        }
    }

    fn child_or_new(&mut self, from: NodeNumber, word: &[u8]) -> NodeNumber {
        if let Some(child) = self.child(from, word) {
            return child;
        }
        let child = self.free_number();
        self.nodes.insert(child, Node::default());
        let parent = self.nodes.entry(from).or_default();
        match word {
            b"*" => parent.star = Some(child),
            b"#" => parent.hash = Some(child),
            _ => {
                parent.word_edges += 1;
                self.edges.insert(Edge { from, word: Arc::from(word) }, child);
            }
        }
        child
    }

    /// Numbers are handed out upwards; after four thousand million changes they begin again, skipping those in use.
    fn free_number(&mut self) -> NodeNumber {
        loop {
            self.next = self.next.wrapping_add(1);
            if self.next != ROOT && !self.nodes.contains_key(&self.next) {
                return self.next;
            }
        }
    }

    fn remove_edge(&mut self, from: NodeNumber, word: &[u8]) {
        let Some(parent) = self.nodes.get_mut(&from) else { return };
        match word {
            b"*" => parent.star = None,
            b"#" => parent.hash = None,
            _ => {
                parent.word_edges -= 1;
                self.edges.remove(&EdgeRef { from, word });
            }
        }
    }
}

impl Node {
    fn is_needless(&self) -> bool {
        self.targets.is_empty() && self.star.is_none() && self.hash.is_none() && self.word_edges == 0
    }
}

/// Places reached behind a `#`: they match whatever follows, so they are kept once they are in.
#[derive(Default)]
struct Lasting<'t> {
    nodes: SmallVec<[(NodeNumber, &'t Node); 8]>,
    /// Numbers of `nodes`, once there are more than [`FEW`].
    numbers: HashSet<NodeNumber, foldhash::fast::FixedState>,
}

impl<'t> Lasting<'t> {
    fn add(&mut self, number: Option<NodeNumber>, table: &'t TopicTable) {
        let Some((number, node)) = number.and_then(|number| Some((number, table.nodes.get(&number)?))) else { return };
        if self.nodes.len() <= FEW {
            if self.nodes.iter().any(|(held, _)| *held == number) {
                return;
            }
        } else {
            if self.numbers.is_empty() {
                self.numbers.extend(self.nodes.iter().map(|(held, _)| *held));
            }
            if !self.numbers.insert(number) {
                return;
            }
        }
        self.nodes.push((number, node));
    }
}

/// The words of a key or pattern: none in an empty one, and empty words count.
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    key.split(|&octet| octet == b'.').take(if key.is_empty() { 0 } else { usize::MAX })
}

/// The words of a pattern, each run of wildcards in its one form.
fn steps(pattern: &[u8]) -> SmallVec<[&[u8]; 16]> {
    let mut steps: SmallVec<[&[u8]; 16]> = SmallVec::new();
    for word in words(pattern) {
        let behind_hash = steps.last().is_some_and(|last| *last == b"#");
        match word {
            b"#" if behind_hash => {}
            b"*" if behind_hash => steps.insert(steps.len() - 1, word),
            _ => steps.push(word),
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::name::QueueId;

    /// What a key finds: the same by a walk however long, without any walk, and as it is done.
    fn matched(table: &TopicTable, key: &str) -> Vec<u64> {
        let found = matched_at_once(table, key);
        let mut targets = Vec::new();
        assert!(table.walk(key.as_bytes(), usize::MAX, &mut |target| targets.push(target)));
        assert_eq!(ids(&targets), found);
        targets.clear();
        for node in PatternBits::new(table.patterns()).matching(words(key.as_bytes())) {
            table.nodes[&node].targets.for_each(&mut |target| targets.push(target));
        }
        assert_eq!(ids(&targets), found);
        found
    }

    fn matched_at_once(table: &TopicTable, key: &str) -> Vec<u64> {
        let mut targets = Vec::new();
        table.route(key.as_bytes(), &mut |target| targets.push(target));
        ids(&targets)
    }

    fn ids(targets: &[&Target]) -> Vec<u64> {
        let mut ids: Vec<u64> = targets
            .iter()
            .map(|target| match target {
                Target::Queue(id) => id.0,
                Target::Exchange(name) => panic!("no exchange {name} was bound"),
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn table(patterns: &[&str]) -> TopicTable {
        let mut table = TopicTable::default();
        for (at, pattern) in patterns.iter().enumerate() {
            table.add(pattern.as_bytes(), Target::Queue(QueueId(at as u64)));
        }
        table
    }

    /// The definition, by recursion.
    fn matches(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            (["#", rest @ ..], _) => (0..=key.len()).any(|skip| matches(rest, &key[skip..])),
            (["*", rest @ ..], [_, key @ ..]) => matches(rest, key),
            ([word, rest @ ..], [first, key @ ..]) => word == first && matches(rest, key),
            _ => false,
        }
    }

    fn split(text: &str) -> Vec<&str> {
        if text.is_empty() { Vec::new() } else { text.split('.').collect() }
    }

    #[test]
    fn patterns_match_as_amqp_says() {
        for (pattern, yes, no) in [
            ("a.b", &["a.b"][..], &["a", "a.b.c", "", "a.c"][..]),
            ("a.*", &["a.b", "a."], &["a", "a.b.c"]),
            ("a.#", &["a", "a.b", "a.b.c", "a."], &["", "b", "b.a"]),
            ("#", &["", "a", "a.b", "."], &[]),
            ("#.#", &["", "a", "a.b.c"], &[]),
            ("*", &["a"], &["", "a.b", "."]),
            ("", &[""], &["a", "."]),
            ("#.b.#", &["b", "a.b", "a.b.c", "b.b"], &["a", "", "ab"]),
            ("*.*", &[".", "a.b"], &["a", ""]),
            ("a..b", &["a..b"], &["a.b"]),
            ("#.a.#.a.#", &["a.a", "a.b.a", "x.a.y.a.z"], &["a", "a.b"]),
        ] {
            let table = table(&[pattern]);
            for key in yes {
                assert_eq!(matched(&table, key), [0], "{pattern} should match {key:?}");
            }
            for key in no {
                assert!(matched(&table, key).is_empty(), "{pattern} should not match {key:?}");
            }
        }
    }

    #[test]
    fn a_hostile_pattern_costs_words_times_places() {
        let pattern = ["#.a"; 60].join(".");
        let key = ["a"; 120].join(".");
        let table = table(&[&pattern]);
        assert_eq!(matched(&table, &key), [0]);
        assert!(matched(&table, &format!("{key}.b")).is_empty());
    }

    #[test]
    fn runs_of_wildcards_have_one_form() {
        for (pattern, form) in [
            ("#.#.#", "#"),
            ("#.*.#.*", "*.*.#"),
            ("a.#.#.b.#.*.c", "a.#.b.*.#.c"),
            ("*.*", "*.*"),
            ("", ""),
            (".#.#.", ".#."),
        ] {
            assert_eq!(steps(pattern.as_bytes()).join(&b'.'), form.as_bytes(), "{pattern}");
        }
    }

    #[test]
    fn ten_thousand_hostile_patterns_have_few_places() {
        // Every row of fourteen wildcards, and every number of `#`.
        let mut patterns: Vec<String> = (0..10_000_u32)
            .map(|row| (0..14).map(|at| if row >> at & 1 == 0 { "#" } else { "*" }).collect::<Vec<_>>().join("."))
            .collect();
        patterns.extend((1..128).map(|count| vec!["#"; count].join(".")));
        let mut table = table(&patterns.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(table.nodes.len() < 50, "{} places", table.nodes.len());
        // No row is all `*`, which alone would not match.
        assert_eq!(matched(&table, &["a"; 128].join(".")).len(), patterns.len());
        for (at, pattern) in patterns.iter().enumerate() {
            table.remove(pattern.as_bytes(), &Target::Queue(QueueId(at as u64)));
        }
        assert_eq!((table.nodes.len(), table.edges.len()), (0, 0));
    }

    #[test]
    fn patterns_that_reach_every_place_again_with_every_word_are_matched_all_the_same() {
        // A walk would look at more than ten million places.
        let row = |row: u32, end: &str| {
            let words = (0..13).map(|at| if row >> at & 1 == 0 { "#.a" } else { "*.a" });
            words.chain([end]).collect::<Vec<_>>().join(".")
        };
        let patterns: Vec<String> = (0..8192).map(|at| row(at, if at % 100 == 7 { "b" } else { "c" })).collect();
        let mut table = table(&patterns.iter().map(String::as_str).collect::<Vec<_>>());
        let key = format!("{}.b", ["a"; 126].join("."));
        assert!(!table.walk(key.as_bytes(), WALK_MAX, &mut |_| panic!("found before the end")));
        // All that have a `#` and end as the key does.
        let expected: Vec<u64> = (0..8191).filter(|at| at % 100 == 7).collect();
        assert_eq!(matched_at_once(&table, &key), expected);
        assert!(table.bits.get().is_some());
        table.remove(patterns[7].as_bytes(), &Target::Queue(QueueId(7)));
        assert_eq!(matched_at_once(&table, &key), expected[1..]);
        table.add(b"#.b", Target::Queue(QueueId(7)));
        assert_eq!(matched_at_once(&table, &key), expected);
    }

    #[test]
    fn what_is_unbound_leaves_nothing_behind() {
        let mut table = table(&["a.b.c", "a.*.#", "#", "", "a"]);
        for (at, pattern) in ["a.b.c", "a.*.#", "#", "", "a"].iter().enumerate() {
            table.remove(pattern.as_bytes(), &Target::Queue(QueueId(at as u64)));
        }
        assert_eq!((table.nodes.len(), table.edges.len()), (0, 0));
    }

    fn pattern() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", "", "*", "#"]), 0..5)
            .prop_map(|words| words.join("."))
    }

    fn key() -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(vec!["a", "b", ""]), 0..6).prop_map(|words| words.join("."))
    }

    proptest! {
        #[test]
        fn matches_what_the_definition_matches(
            patterns in prop::collection::vec(pattern(), 0..30),
            removed in prop::collection::vec(any::<bool>(), 30),
            keys in prop::collection::vec(key(), 1..10),
        ) {
            let mut table = table(&patterns.iter().map(String::as_str).collect::<Vec<_>>());
            for (at, pattern) in patterns.iter().enumerate().filter(|(at, _)| removed[*at]) {
                table.remove(pattern.as_bytes(), &Target::Queue(QueueId(at as u64)));
            }
            for key in &keys {
                let expected: Vec<u64> = (0..patterns.len())
                    .filter(|&at| !removed[at] && matches(&split(&patterns[at]), &split(key)))
                    .map(|at| at as u64)
                    .collect();
                prop_assert_eq!(matched(&table, key), expected, "key {:?} patterns {:?}", key, patterns);
            }
        }
    }
}
