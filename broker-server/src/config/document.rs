//! The syntax of `rabbitmq.conf`: one `key = value` a line, `#` comments, `include` lines.
//!
//! A key is dot-separated segments of letters, digits, `_`, `-` and escaped characters (`\.`). The value runs to the
//! end of the line or to a `#`, without the blanks around it. A value wholly in single quotes is taken literally, `#`
//! included (RabbitMQ 3.13). Double quotes are part of the value, as in RabbitMQ.

/// A line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// What it says.
    pub statement: Statement,
}

/// What a line can say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// `key = value`.
    Setting {
        /// The key, its segments joined by dots again; an escaped dot stays escaped.
        key: String,
        /// The value, not yet interpolated.
        value: String,
        /// Something odd that is no error.
        warning: Option<&'static str>,
    },
    /// `include PATTERN`.
    Include(String),
    /// Not readable; the text says why.
    Malformed(String),
}

const CUT_AT_HASH: &str = "the value ends at the '#', which begins a comment; quote the value with '...' to keep it";
const DOUBLE_QUOTES: &str = "the double quotes are part of the value; use '...' to quote";

/// Reads `text`, giving every line that is neither blank nor a comment. Never fails as a whole.
#[must_use]
pub fn parse(text: &str) -> Vec<Line> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.split('\n').enumerate();
    lines.filter_map(|(index, line)| Some(Line { number: index + 1, statement: parse_line(line)? })).collect()
}

fn parse_line(line: &str) -> Option<Statement> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    if let Some(rest) = line.strip_prefix("include").filter(|rest| rest.starts_with([' ', '\t'])) {
        let pattern = until_comment(rest).trim();
        if !pattern.starts_with('=') {
            return Some(include(pattern));
        }
    }
    let Some((key, value)) = line.split_once('=') else {
        // The line itself is not shown: it may hold a password whose '=' is missing.
        return Some(Statement::Malformed("expected 'key = value', found no '='".into()));
    };
    let key = key.trim();
    if let Some(reason) = bad_key(key) {
        // Only its first word is: `default_pass: a=b` has half a password for a key.
        let word = key.split([' ', '\t', ':']).next().unwrap_or_default();
        return Some(Statement::Malformed(format!("'{}' is not a key: {reason}", shortened(word))));
    }
    Some(setting(key, value.trim()))
}

fn include(pattern: &str) -> Statement {
    if pattern.is_empty() {
        return Statement::Malformed("include needs a file name".into());
    }
    Statement::Include(pattern.into())
}

fn setting(key: &str, raw: &str) -> Statement {
    if let Some(value) = single_quoted(raw) {
        return Statement::Setting { key: key.into(), value: value.into(), warning: None };
    }
    let value = until_comment(raw).trim_end();
    if value.is_empty() {
        return Statement::Malformed(format!("'{}' has no value", shortened(key)));
    }
    let cut = raw.len() > value.len() && raw.get(value.len()..).is_some_and(|rest| rest.starts_with('#'));
    let doubly_quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
    let warning = if cut { Some(CUT_AT_HASH) } else { doubly_quoted.then_some(DOUBLE_QUOTES) };
    Statement::Setting { key: key.into(), value: value.into(), warning }
}

/// The inside of `'...'` if nothing but a comment follows the closing quote and no quote stands inside.
fn single_quoted(raw: &str) -> Option<&str> {
    let (inside, rest) = raw.strip_prefix('\'')?.split_once('\'')?;
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with('#')).then_some(inside)
}

fn until_comment(text: &str) -> &str {
    text.split_once('#').map_or(text, |(before, _)| before)
}

fn bad_key(key: &str) -> Option<&'static str> {
    let mut segment_is_empty = true;
    let mut characters = key.chars();
    while let Some(character) = characters.next() {
        match character {
            '.' if segment_is_empty => return Some("a segment between the dots is empty"),
            '.' => segment_is_empty = true,
            '\\' if characters.next().is_none() => return Some("it ends in a backslash"),
            '\\' | '_' | '-' => segment_is_empty = false,
            character if character.is_ascii_alphanumeric() => segment_is_empty = false,
            _ => return Some("only letters, digits, '_', '-' and dots may stand in it"),
        }
    }
    segment_is_empty.then_some("a segment is empty")
}

/// At most 40 characters of `text`, for messages.
pub(super) fn shortened(text: &str) -> String {
    const SHOWN: usize = 40;
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

/// The segments of a key, escapes removed: `a\.b.c` is `a.b` and `c`.
#[must_use]
pub fn segments(key: &str) -> Vec<String> {
    let mut segments = vec![String::new()];
    let mut characters = key.chars();
    while let Some(character) = characters.next() {
        match (character, segments.last_mut()) {
            ('.', _) => segments.push(String::new()),
            ('\\', Some(last)) => last.extend(characters.next()),
            (_, Some(last)) => last.push(character),
            (_, None) => {}
        }
    }
    segments
}

/// A name as one segment of a key: dots and whatever else a key cannot hold are escaped.
#[must_use]
pub fn escaped_segment(name: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || character == '_' || character == '-';
    name.chars().flat_map(|character| [(!plain(character)).then_some('\\'), Some(character)]).flatten().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    /// `Some(value)` of a one-line document with the key `a.b`, `None` if it is malformed.
    fn value_of(line: &str) -> Option<String> {
        match parse(line).into_iter().next()?.statement {
            Statement::Setting { value, .. } => Some(value),
            Statement::Include(_) | Statement::Malformed(_) => None,
        }
    }

    /// Each line with what RabbitMQ 3.10.8's own parser (cuttlefish 3.0.1) makes of it.
    #[test]
    fn reads_lines_as_rabbitmq_does() {
        let cases = [
            ("a.b = 1", Some("1")),
            ("a.b=1", Some("1")),
            ("  a.b = 1  # comment", Some("1")),
            ("a.b = x y z", Some("x y z")),
            ("a.b = 'it''s'", Some("'it''s'")),
            ("a.b = \"x\"", Some("\"x\"")),
            ("a.b = $(HOME)", Some("$(HOME)")),
            ("a.b =", None),
            ("a.b", None),
            ("a b = 1", None),
            ("a.b = x#y", Some("x")),
            ("a-b_c.D1 = v", Some("v")),
            ("a/b = v", None),
            ("a\\.b.c = v", Some("v")),
            ("a.b = 'x' y", Some("'x' y")),
            ("a.b = \"x", Some("\"x")),
            ("\tb = 2\r", Some("2")),
            ("a.b : 1", None),
            ("a.b = x % y", Some("x % y")),
            ("a..b = 1", None),
            (".a = 1", None),
            ("a. = 1", None),
            ("a.b == 1", Some("= 1")),
            ("a.b = 1 = 2", Some("1 = 2")),
        ];
        for (line, expected) in cases {
            assert_eq!(value_of(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn single_quotes_keep_a_hash_and_blanks() {
        assert_eq!(value_of("a.b = ' x # y ' # comment").as_deref(), Some(" x # y "));
        assert_eq!(value_of("a.b = ''").as_deref(), Some(""));
    }

    #[test]
    fn a_hash_within_a_value_warns() {
        let lines = parse("a = p#w\nb = p #w");
        let warnings: Vec<_> =
            lines.iter().map(|line| matches!(&line.statement, Statement::Setting { warning: Some(_), .. })).collect();
        assert_eq!(warnings, [true, false]);
    }

    #[test]
    fn lines_are_numbered_from_one_and_comments_are_skipped() {
        let numbers: Vec<_> =
            parse("# one\n\nc = 3\n  # four\ninclude other.conf # x\n").iter().map(|l| l.number).collect();
        assert_eq!(numbers, [3, 5]);
        assert_eq!(parse("include  a/*.conf # x")[0].statement, Statement::Include("a/*.conf".into()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_every_line_has_its_number(text in "\\PC{0,80}(\n\\PC{0,40}){0,5}") {
            let count = text.split('\n').count();
            let mut last = 0;
            for line in parse(&text) {
                prop_assert!(line.number > last && line.number <= count);
                last = line.number;
            }
        }

        #[test]
        fn any_bytes_as_text_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn a_name_survives_being_a_segment(name in "[^\r\n]{1,20}") {
            prop_assume!(name.trim() == name);
            let key = format!("loopback_users.{}", escaped_segment(&name));
            prop_assert_eq!(segments(&key), vec!["loopback_users".to_string(), name]);
        }
    }
}
