//! What must differ between two runs, replaced by what must not.

use std::collections::BTreeMap;

use crate::wire::Decoded;
use crate::{table, text};

/// The prefixes of names that a broker makes up.
const GENERATED: [&str; 2] = ["amq.gen-", "amq.ctag-"];
/// How many letters follow such a prefix.
const GENERATED_LETTERS: usize = 22;
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
                    let real = hidden.get(start..from + GENERATED_LETTERS).unwrap_or_default().to_owned();
                    let number = self.aliases.keys().filter(|name| name.starts_with(prefix)).count() + 1;
                    let alias = self.aliases.entry(real).or_insert_with(|| format!("{prefix}{number}"));
                    hidden.replace_range(start..from + GENERATED_LETTERS, alias);
                }
            }
        }
        hidden
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
    fn the_product_hides_behind_a_star() {
        assert_eq!(
            server_properties("{version:S 1, capabilities:F {b:t true, a:t true}}"),
            "{capabilities:F {a:t true, b:t true}, version:*}"
        );
        assert_eq!(sorted_words("\"PLAIN AMQPLAIN\""), "\"AMQPLAIN PLAIN\"");
    }
}
