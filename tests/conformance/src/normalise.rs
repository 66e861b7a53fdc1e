//! What must differ between two runs, replaced by what must not.

use std::collections::BTreeMap;

use crate::wire::Decoded;
use crate::{table, text};

/// The prefixes of names that a broker makes up.
const GENERATED: [&str; 2] = ["amq.gen-", "amq.ctag-"];
/// How many letters follow such a prefix.
const GENERATED_LETTERS: usize = 22;
/// What the addresses of direct replies begin with; what follows is as long as the broker likes.
const REPLY_ADDRESS: &str = "amq.rabbitmq.reply-to.";
/// Shorter ones are a scenario's own.
const REPLY_ADDRESS_LETTERS_MIN: usize = 22;
/// Server properties whose values say which product it is.
const PRODUCT: [&str; 6] = ["cluster_name", "copyright", "information", "platform", "product", "version"];

/// The made-up names of one run, numbered in the order in which they were first seen.
#[derive(Debug, Default)]
pub struct Names {
    aliases: BTreeMap<String, String>,
}

impl Names {
    /// Replaces made-up names by `amq.gen-1`, `amq.ctag-2` and so on.
    pub fn hide(&mut self, line: &str) -> String {
        let mut hidden = line.to_owned();
        for prefix in GENERATED {
            let mut from = 0;
            while let Some(place) = hidden.get(from..).and_then(|rest| rest.find(prefix)) {
                let start = from + place;
                from = start + prefix.len();
                let letters = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(octet);
                let tail = hidden.as_bytes().get(from..).unwrap_or_default();
                if tail.iter().take_while(|octet| letters(octet)).count() == GENERATED_LETTERS {
                    self.replace(&mut hidden, prefix, start..from + GENERATED_LETTERS);
                }
            }
        }
        self.hide_reply_addresses(&mut hidden);
        hidden
    }

    /// Addresses of direct replies end where the word does; one with letters that need quotes loses its quotes.
    fn hide_reply_addresses(&mut self, hidden: &mut String) {
        let mut from = 0;
        while let Some(place) = hidden.get(from..).and_then(|rest| rest.find(REPLY_ADDRESS)) {
            let start = from + place;
            from = start + REPLY_ADDRESS.len();
            let letters = |octet: &u8| octet.is_ascii_alphanumeric() || b"+/=-_.".contains(octet);
            let tail = hidden.as_bytes().get(from..).unwrap_or_default();
            let end = from + tail.iter().take_while(|octet| letters(octet)).count();
            if end - from < REPLY_ADDRESS_LETTERS_MIN {
                continue;
            }
            let quoted = hidden.get(..start).is_some_and(|before| before.ends_with("=\"") || before.ends_with(" \""))
                && hidden.get(end..).is_some_and(|after| after.starts_with('"'));
            if quoted {
                hidden.remove(end);
                hidden.remove(start - 1);
                self.replace(hidden, REPLY_ADDRESS, start - 1..end - 1);
            } else {
                self.replace(hidden, REPLY_ADDRESS, start..end);
            }
        }
    }

    /// Puts the alias of a made-up name in its place.
    fn replace(&mut self, hidden: &mut String, prefix: &str, range: std::ops::Range<usize>) {
        let real = hidden.get(range.clone()).unwrap_or_default().to_owned();
        let number = self.aliases.keys().filter(|name| name.starts_with(prefix)).count() + 1;
        let alias = self.aliases.entry(real).or_insert_with(|| format!("{prefix}{number}"));
        hidden.replace_range(range, alias);
    }

    /// Replaces `amq.gen-1` and the like by the real names.
    pub fn reveal(&self, line: &str) -> String {
        // Longest alias first, so that amq.gen-12 is not taken for amq.gen-1.
        let mut aliases: Vec<_> = self.aliases.iter().collect();
        aliases.sort_by_key(|(_, alias)| std::cmp::Reverse(alias.len()));
        aliases.iter().fold(line.to_owned(), |line, (real, alias)| line.replace(alias.as_str(), real))
    }
}

/// A received method's arguments as text, with what the product may choose left out.
pub fn arguments(decoded: &Decoded) -> Vec<(&'static str, String)> {
    let frame_error = decoded.argument("reply_code") == Some("501");
    let arguments = decoded.arguments.iter().map(|(name, value)| match *name {
        "server_properties" => (*name, server_properties(value)),
        "mechanisms" => (*name, sorted_words(value)),
        // RabbitMQ shows Erlang terms here; code and scope are what clients can rely on.
        "reply_text" if frame_error => (*name, text::show(b"FRAME_ERROR - *")),
        _ => (*name, value.clone()),
    });
    arguments.collect()
}

/// A content's property as text. The times in `x-death` are those of the run, and so are a traced message's node and connection.
pub fn property(name: &str, value: &str) -> String {
    if name != "headers" {
        return value.to_owned();
    }
    let mut shown = value.to_owned();
    if value.contains("x-death:A [") {
        shown = starred(&shown, ", time:T ", |letter| letter.is_ascii_digit());
    }
    if value.contains("routing_keys:A [") {
        for of_the_run in [", node:S \"", ", connection:S \""] {
            shown = starred(&shown, of_the_run, |letter| letter != '"');
        }
    }
    shown
}

/// What stands behind each `beginning`, as far as its letters are such ones, replaced by a star.
fn starred(text: &str, beginning: &str, such: fn(char) -> bool) -> String {
    let mut parts = text.split(beginning);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |shown, part| shown + beginning + "*" + part.trim_start_matches(such))
}

/// The properties in alphabetical order, the product's own values replaced by a star.
fn server_properties(value: &str) -> String {
    let octets = table::encode(value).unwrap_or_default();
    let mut entries = table::entries(&octets).unwrap_or_default();
    for (key, value) in &mut entries {
        if PRODUCT.contains(&key.as_str()) {
            *value = "*".to_owned();
        } else if let Some(inner) = value.strip_prefix("F ") {
            *value = format!("F {}", server_properties(inner));
        }
    }
    entries.sort();
    let entries: Vec<String> = entries.iter().map(|(key, value)| format!("{key}:{value}")).collect();
    format!("{{{}}}", entries.join(", "))
}

fn sorted_words(value: &str) -> String {
    let octets = text::octets(value).unwrap_or_default();
    let string = String::from_utf8_lossy(&octets);
    let mut words: Vec<&str> = string.split(' ').collect();
    words.sort_unstable();
    text::show(words.join(" ").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_numbered_and_found_again() {
        let mut names = Names::default();
        let line = "queue=amq.gen-AAAAAAAAAAAAAAAAAAAAA1 tag=amq.ctag-BBBBBBBBBBBBBBBBBBBBBB amq.gen-short";
        assert_eq!(names.hide(line), "queue=amq.gen-1 tag=amq.ctag-1 amq.gen-short");
        assert_eq!(names.hide("amq.gen-CCCCCCCCCCCCCCCCCCCC-_ amq.gen-AAAAAAAAAAAAAAAAAAAAA1"), "amq.gen-2 amq.gen-1");
        assert_eq!(names.reveal("queue=amq.gen-2"), "queue=amq.gen-CCCCCCCCCCCCCCCCCCCC-_");
    }

    #[test]
    fn reply_addresses_are_numbered_whatever_their_length() {
        let mut names = Names::default();
        let address = "amq.rabbitmq.reply-to.g1h2AAdyYWJiaXQ+/A.Q29ycmVjdEhvcnNl==";
        let line = format!(
            "routing_key=\"{address}\" headers={{CC:A [S \"{address}\"]}} reply_to=amq.rabbitmq.reply-to x=\"no '{address}' here\""
        );
        let hidden = "routing_key=amq.rabbitmq.reply-to.1 headers={CC:A [S amq.rabbitmq.reply-to.1]} reply_to=amq.rabbitmq.reply-to x=\"no 'amq.rabbitmq.reply-to.1' here\"";
        assert_eq!(names.hide(&line), hidden);
        assert_eq!(
            names.reveal("a1 basic.publish routing_key=amq.rabbitmq.reply-to.1"),
            format!("a1 basic.publish routing_key={address}")
        );
        assert_eq!(names.hide("amq.rabbitmq.reply-to.abc"), "amq.rabbitmq.reply-to.abc");
    }

    #[test]
    fn times_of_death_are_left_out() {
        let headers = "{x-death:A [F {queue:S q, time:T 1700000000, a:I 1}, F {queue:S r, time:T 5, a:I 2}]}";
        let expected = "{x-death:A [F {queue:S q, time:T *, a:I 1}, F {queue:S r, time:T *, a:I 2}]}";
        assert_eq!(property("headers", headers), expected);
        assert_eq!(property("headers", "{a:I 1, time:T 5}"), "{a:I 1, time:T 5}");
        assert_eq!(property("type", headers), headers);
    }

    #[test]
    fn the_product_hides_behind_a_star() {
        assert_eq!(
            server_properties("{version:S 1, capabilities:F {b:t true, a:t true}}"),
            "{capabilities:F {a:t true, b:t true}, version:*}"
        );
        assert_eq!(sorted_words("\"PLAIN AMQPLAIN\""), "\"AMQPLAIN PLAIN\"");
    }
}
