//! `advanced.config`: Erlang terms that we refuse with a list of what is in it.

use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::error::{Complaint, Origin};
use super::files::read_text;

/// A complaint if there is an `advanced.config` that says anything: named by `RABBITMQ_ADVANCED_CONFIG_FILE`, or
/// beside the configuration file.
pub(super) fn refusal(main: Option<&Path>, environment: &Environment) -> Option<Complaint> {
    let named = environment.value("RABBITMQ_ADVANCED_CONFIG_FILE").map(PathBuf::from);
    let beside = main.and_then(Path::parent).map(|parent| parent.join("advanced.config"));
    let path = named.or(beside).filter(|path| path.is_file())?;
    let origin = Origin::File { path: std::sync::Arc::new(path.clone()), line: 1 };
    let found = match read_text(&path) {
        Ok(text) => settings(&text),
        Err(reason) => return Some(Complaint::new(&origin, reason)),
    };
    if found.is_empty() {
        return None;
    }
    let list = found.join(", ");
    let text = format!("Erlang terms are not understood; move these settings to the configuration file: {list}");
    Some(Complaint::new(&origin, text))
}

/// `application.key` of every setting, found by the depth of brackets; what is not of that shape gives `(something)`.
fn settings(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut application = String::new();
    let mut depth = 0_usize;
    let mut previous = ' ';
    let mut characters = text.chars().peekable();
    let mut anything = false;
    while let Some(character) = characters.next() {
        match character {
            '%' => while characters.next_if(|character| *character != '\n').is_some() {},
            '"' | '\'' => skip_quoted(&mut characters, character),
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            letter if letter.is_ascii_lowercase() => {
                let mut atom = String::from(letter);
                while let Some(next) = characters.next_if(|next| next.is_ascii_alphanumeric() || *next == '_') {
                    atom.push(next);
                }
                anything = true;
                match (depth, previous) {
                    (2, '{') => application = atom,
                    (4, '{') => found.push(format!("{application}.{atom}")),
                    _ => {}
                }
            }
            _ => {}
        }
        if !character.is_whitespace() {
            previous = character;
        }
    }
    if found.is_empty() && anything {
        found.push("(something)".into());
    }
    found
}

fn skip_quoted(characters: &mut std::iter::Peekable<std::str::Chars<'_>>, quote: char) {
    while let Some(character) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            character if character == quote => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_applications_and_keys() {
        let text = "%% {rabbit, [{no, 1}]}\n[{rabbit, [{tcp_listeners, [5673]}, {heartbeat, 10}]},\n {kernel, [{net_ticktime, 5}]}].";
        assert_eq!(settings(text), ["rabbit.tcp_listeners", "rabbit.heartbeat", "kernel.net_ticktime"]);
    }

    #[test]
    fn an_empty_list_says_nothing() {
        assert!(settings("%% nothing\n[\n].\n").is_empty());
        assert_eq!(settings("[rabbit]."), ["(something)"]);
    }
}
