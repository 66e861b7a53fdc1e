//! Regular expressions over names and routing keys.

use regex::bytes::{Regex, RegexBuilder};

/// A pattern may be this long, in octets.
pub const PATTERN_MAX_BYTES: usize = 4 * 1024;
/// A compiled pattern may take this much memory, in octets.
const COMPILED_MAX_BYTES: usize = 1 << 20;

/// A regular expression; matches anywhere in a name. The empty one matches the empty name only.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    /// None: the empty one.
    compiled: Option<Regex>,
}

/// Why a pattern is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// Longer than [`PATTERN_MAX_BYTES`].
    #[error("the pattern is longer than {PATTERN_MAX_BYTES} octets")]
    TooLong,
    /// Not a regular expression, or one that would take too much memory.
    #[error("{0}")]
    Syntax(String),
}

impl Pattern {
    /// Compiles a pattern. Matching is linear in the name, whatever the pattern.
    pub fn new(text: &str) -> Result<Pattern, BadPattern> {
        Pattern::expanded(text, &[])
    }

    /// Compiles a pattern in which `{name}` stands for a text, to be matched as it is.
    pub fn expanded(text: &str, variables: &[(&str, &str)]) -> Result<Pattern, BadPattern> {
        if text.len() > PATTERN_MAX_BYTES {
            return Err(BadPattern::TooLong);
        }
        let compile = || {
            RegexBuilder::new(&expand(text, variables))
                .size_limit(COMPILED_MAX_BYTES)
                .dfa_size_limit(COMPILED_MAX_BYTES)
                .build()
                .map_err(|error| BadPattern::Syntax(error.to_string()))
        };
        let compiled = if text.is_empty() { None } else { Some(compile()?) };
        Ok(Pattern { text: text.to_owned(), compiled })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches a name.
    pub fn matches(&self, name: &str) -> bool {
        self.matches_octets(name.as_bytes())
    }

    /// Whether it matches a routing key, which need not be UTF-8.
    pub fn matches_octets(&self, key: &[u8]) -> bool {
        match &self.compiled {
            Some(regex) => regex.is_match(key),
            None => key.is_empty(),
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Puts in the variables' values, and takes other braces that begin no repetition as themselves, as RabbitMQ's regular expressions do.
fn expand(text: &str, variables: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find(['\\', '{']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let used = if from.starts_with('\\') {
            let used = escape_len(from);
            out.push_str(&from[..used]);
            used
        } else {
            let inner = from[1..].split_once('}').map(|(inner, _)| inner);
            match variables.iter().find(|(name, _)| inner == Some(*name)) {
                Some((name, value)) => {
                    out.push_str(&regex::escape(value));
                    name.len() + 2
                }
                None => {
                    out.push_str(if inner.is_some_and(is_repetition) { "{" } else { "\\{" });
                    1
                }
            }
        };
        rest = &from[used..];
    }
    out + rest
}

/// How long what begins with a backslash is: one character after it, and a part in braces if there is one.
fn escape_len(text: &str) -> usize {
    let Some(escaped) = text[1..].chars().next() else { return 1 };
    let plain = 1 + escaped.len_utf8();
    match text[plain..].strip_prefix('{').and_then(|inner| inner.find('}')) {
        Some(len) if "pPxuUb".contains(escaped) => plain + len + 2,
        _ => plain,
    }
}

/// `3`, `3,` or `3,5`
fn is_repetition(inner: &str) -> bool {
    let (from, to) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |text: &str| text.bytes().all(|octet| octet.is_ascii_digit());
    !from.is_empty() && digits(from) && digits(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_patterns_are_refused_or_linear() {
        assert_eq!(Pattern::new(&"a".repeat(PATTERN_MAX_BYTES + 1)), Err(BadPattern::TooLong));
        assert!(Pattern::new(&"a".repeat(PATTERN_MAX_BYTES)).is_ok());
        assert!(Pattern::new("(((a{1000}){1000}){1000})").is_err());
        assert!(Pattern::new("(").is_err());
        assert!(!Pattern::new("(a+)+$").unwrap().matches(&format!("{}b", "a".repeat(250))));
    }

    #[test]
    fn variables_stand_for_their_text_and_nothing_else() {
        let variables = [("username", "a.b{vhost}"), ("vhost", "/x")];
        let pattern = Pattern::expanded("^{username}-{vhost}$", &variables).unwrap();
        assert_eq!(pattern.as_str(), "^{username}-{vhost}$");
        assert!(pattern.matches("a.b{vhost}-/x"));
        assert!(!pattern.matches("axb{vhost}-/x") && !pattern.matches("a.b/x-/x"));
        assert!(Pattern::expanded("{username}", &[("username", "(")]).unwrap().matches("x(y"));
    }

    #[test]
    fn braces_are_literal_where_they_mean_nothing() {
        for (pattern, name) in [
            ("^{client_id}$", "{client_id}"),
            ("^a{2}$", "aa"),
            ("^a{2,}$", "aaa"),
            ("^a{1,3}$", "aaa"),
            ("^{$", "{"),
            ("^[{]x}$", "{x}"),
            ("^\\{x}$", "{x}"),
            ("^\\p{Lu}$", "X"),
            ("^\\x{41}$", "A"),
        ] {
            assert!(Pattern::new(pattern).unwrap().matches(name), "{pattern} on {name}");
        }
        assert!(Pattern::new("\\").is_err());
    }

    #[test]
    fn keys_need_not_be_text() {
        assert!(Pattern::new(".*").unwrap().matches_octets(b"\xff\xfe"));
        assert!(Pattern::new("^a\\.").unwrap().matches_octets(b"a.\xff"));
        assert!(!Pattern::new("^b").unwrap().matches_octets(b"\xff"));
        assert!(Pattern::new("").unwrap().matches_octets(b""));
        assert!(!Pattern::new("").unwrap().matches_octets(b"\xff"));
    }
}
