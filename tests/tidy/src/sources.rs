//! What Rust files must and must not hold.

use regex::Regex;

use crate::tree::TextFile;

/// Files that may hold `unsafe`. Each is reviewed, short, and says why.
const MAY_BE_UNSAFE: &[&str] = &[];

/// Module names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "manager", "managers", "misc", "common"];

/// A pattern that must not occur in some files.
struct Rule {
    pattern: &'static str,
    applies: fn(&str) -> bool,
    /// Whether tests must keep it too.
    in_tests: bool,
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        pattern: r"\bunsafe\s*(\{|fn\b|impl\b|trait\b|extern\b)|allow\([^)]*\bunsafe_code\b",
        applies: |path| !MAY_BE_UNSAFE.contains(&path) && !path.starts_with("tests/tidy/"),
        in_tests: true,
        why: "unsafe code outside the allow-list of tests/tidy/src/sources.rs",
    },
    Rule {
        pattern: r"\b(std::fs|rustix::(fs|io)|std::os::unix::fs|std::os::fd|use std::\{[^}]*\bfs\b)",
        applies: |path| path.starts_with("broker-core/src/") && !path.starts_with("broker-core/src/store/"),
        in_tests: false,
        why: "file access in broker-core belongs to store/",
    },
    Rule {
        pattern: r"\bstd::(fs|net|os::unix::net)\b",
        applies: |path| path.starts_with("broker-amqp/src/") || path.starts_with("broker-gm/src/"),
        in_tests: false,
        why: "cores do no input or output",
    },
    Rule {
        pattern: r"\b(Instant|SystemTime)::now\b|\bthread::(sleep|spawn)\b",
        applies: |path| {
            ["broker-core/src/", "broker-amqp/src/", "broker-gm/src/"].iter().any(|core| path.starts_with(core))
                && !path.starts_with("broker-core/src/store/")
        },
        in_tests: false,
        why: "cores read no clock and start no thread: time is an input",
    },
    Rule {
        pattern: r"\b(tokio|openraft)\b",
        applies: |path| path.starts_with("broker-meta/src/") && !path.starts_with("broker-meta/src/raft/"),
        in_tests: false,
        why: "only raft/ in broker-meta knows openraft and tokio",
    },
    Rule {
        pattern: r"\bprost\b|\bserde_json\b",
        applies: |path| path.starts_with("broker-amqp/src/") || path.starts_with("broker-core/src/"),
        in_tests: false,
        why: "protobuf and JSON have their own crates",
    },
    Rule {
        pattern: r"(?i)\bslave",
        applies: |path| !path.starts_with("broker-mgmt/") && !path.starts_with("tests/tidy/"),
        in_tests: true,
        why: "the word is mirror; only HTTP JSON keeps the old one",
    },
];

/// All violations in the Rust files among `files`, as `path:line: why`.
pub fn violations(files: &[TextFile]) -> Vec<String> {
    let rules: Vec<(Regex, &Rule)> =
        RULES.iter().filter_map(|rule| Some((Regex::new(rule.pattern).ok()?, rule))).collect();
    assert_eq!(rules.len(), RULES.len(), "a pattern is not a regular expression");
    let rust = files.iter().filter(|file| file.path.ends_with(".rs"));
    rust.flat_map(|file| file_violations(file, &rules)).collect()
}

fn file_violations(file: &TextFile, rules: &[(Regex, &Rule)]) -> Vec<String> {
    let path = &file.path;
    let mut found = Vec::new();
    if !file.text.starts_with("//!") {
        found.push(format!("{path}:1: a file begins with //! and its purpose"));
    }
    if let Some(name) = path.trim_end_matches(".rs").split('/').find(|name| EMPTY_NAMES.contains(name)) {
        found.push(format!("{path}: {name} says nothing about what is inside"));
    }
    let code_lines = if path.ends_with("/tests.rs") { 0 } else { lines_before_tests(&file.text) };
    for (regex, rule) in rules.iter().filter(|(_, rule)| (rule.applies)(path)) {
        let lines = file.text.lines().enumerate().take(if rule.in_tests { usize::MAX } else { code_lines });
        let hits = lines.filter(|(_, line)| regex.is_match(without_comment(line)));
        found.extend(hits.map(|(number, _)| format!("{path}:{}: {}", number + 1, rule.why)));
    }
    found
}

/// How many lines stand before the test module at the foot of the file.
fn lines_before_tests(text: &str) -> usize {
    text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count()
}

/// The line up to a comment, so that a sentence may name what code may not. A `//` inside a string ends it too early,
/// which only makes the rule milder.
fn without_comment(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str) -> Vec<String> {
        violations(&[TextFile { path: path.into(), text: format!("//! Doc.\n{text}\n") }])
    }

    #[test]
    fn ordinary_code_passes() {
        assert_eq!(
            check("broker-core/src/queue.rs", "pub fn step() {} // reads no std::fs, is not unsafe { }"),
            [""; 0]
        );
        assert_eq!(check("broker-core/src/store/disk.rs", "use std::fs;"), [""; 0]);
        assert_eq!(
            check("broker-amqp/src/heartbeat.rs", "fn step() {}\n#[cfg(test)]\nmod tests { Instant::now() }"),
            [""; 0]
        );
        assert_eq!(check("broker-meta/src/raft/network.rs", "use tokio::sync::mpsc;"), [""; 0]);
    }

    #[test]
    fn each_rule_bites() {
        for (path, text) in [
            ("broker-server/src/main.rs", "unsafe { hint() }"),
            ("broker-server/src/main.rs", "#![allow(unsafe_code)]"),
            ("broker-core/src/queue.rs", "use std::fs;"),
            ("broker-core/src/queue.rs", "use rustix::fs::open;"),
            ("broker-amqp/src/frame.rs", "let stream = std::net::TcpStream::connect(address);"),
            ("broker-gm/src/member.rs", "let now = Instant::now();"),
            ("broker-meta/src/catalog.rs", "tokio::spawn(apply());"),
            ("broker-amqp/src/frame.rs", "serde_json::to_string(&frame)"),
            ("broker-gm/src/member.rs", "struct Slave;"),
            ("broker-server/src/utils.rs", ""),
            ("broker-server/src/manager/mod.rs", ""),
        ] {
            assert_eq!(check(path, text).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn a_file_without_purpose_is_found() {
        let file = TextFile { path: "broker-core/src/name.rs".into(), text: "pub struct Name;".into() };
        assert_eq!(violations(&[file]), ["broker-core/src/name.rs:1: a file begins with //! and its purpose"]);
    }
}
