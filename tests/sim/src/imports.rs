//! Definitions files that say anything at all: they are refused, or become commands, and what an accepted file has made is exported as a file that
//! makes the same again.

// A fuzz target says by a panic what it found.
#![allow(clippy::panic, clippy::unwrap_used)]

use broker_meta::{Catalog, CatalogEvent, Command};
use broker_mgmt::definitions::{DefinitionsError, StoredPassword, export, parse};

/// Exported by `rabbitmqctl export_definitions` of RabbitMQ 3.10.8.
const RECORDED: &str = include_str!("../../../broker-mgmt/tests/recorded/rabbitmq-3.10.8.json");
/// The first octet that stands for a file whose content is the others as they are.
const RAW: u8 = 255;
/// What is put in place of a piece of the file.
const PIECES: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-1",
    "1.5",
    "1e999",
    "9223372036854775807",
    "9223372036854775808",
    "\"\"",
    "\"/\"",
    "\"v1\"",
    "\"q1\"",
    "\"guest\"",
    "\"amq.topic\"",
    "\"topic\"",
    "\"headers\"",
    "\"x-consistent-hash\"",
    "\"quorum\"",
    "\".*\"",
    "\"(\"",
    "\"a{9}{9}{9}{9}{9}\"",
    "\"Not UTF-8, base64 is: //4=\"",
    "\"\\u0000\"",
    "[]",
    "{}",
    "[1]",
    "{\"a\":{}}",
    "\"name\"",
    "\"vhost\"",
    "\"arguments\"",
    "\"x-match\"",
    "\"x-max-priority\"",
    "\"x-queue-type\"",
    "\"x-dead-letter-exchange\"",
    "\"max-length\"",
    "\"password\"",
    "\"password_hash\"",
    "\"limits\"",
    "\"metadata\"",
    "\"default_queue_type\"",
    ":",
    ",",
    "[",
    "]",
    "{",
    "}",
];

/// Imports the recorded file, changed as the octets say.
///
/// # Panics
/// When something is not as it must be.
pub fn live(octets: &[u8]) {
    let document = match octets.split_first() {
        Some((&RAW, rest)) => rest.to_vec(),
        _ => changed(octets).into_bytes(),
    };
    let Ok(commands) = read(&document) else { return };
    let mut catalog = Catalog::default();
    if !apply(&mut catalog, &commands) {
        return;
    }
    let exported = export(&catalog.to_snapshot());
    let text = String::from_utf8_lossy(&exported);
    let commands = read(&exported).unwrap_or_else(|error| panic!("an export is refused: {error}: {text}"));
    let mut again = Catalog::default();
    assert!(apply(&mut again, &commands), "an export is not accepted: {text}");
    assert_eq!(String::from_utf8_lossy(&export(&again.to_snapshot())), text);
}

/// A file whose bad passwords and limits are the only ones that count: hashing takes long.
fn read(document: &[u8]) -> Result<Vec<Command>, DefinitionsError> {
    parse(document, &mut |_| Ok(StoredPassword { algorithm: String::new(), hash: String::new() }))
}

/// Whether all was accepted.
fn apply(catalog: &mut Catalog, commands: &[Command]) -> bool {
    let before = catalog.topology();
    commands.iter().enumerate().all(|(at, command)| {
        // A vhost that is created needs no change.
        if let Some(proto::meta::command::Kind::UpdateVhost(update)) = &command.kind
            && before.vhost(&update.name).is_none()
        {
            return true;
        }
        let events = catalog.apply(at as u64 + 1, command);
        !matches!(events.first(), Some(CatalogEvent::Refused(_)))
    })
}

/// The recorded file in which some pieces are others, missing, or there twice.
fn changed(octets: &[u8]) -> String {
    let mut pieces = pieces(RECORDED);
    for order in octets.chunks_exact(4).take(16) {
        let &[how, high, low, what] = order else { continue };
        let at = usize::from(u16::from_be_bytes([high, low])) % pieces.len();
        match how % 6 {
            0..=2 => {
                // Most often a value for a value, so that it stays JSON.
                let is_value = |piece: &str| !matches!(piece, ":" | "," | "[" | "]" | "{" | "}");
                let from = (at..pieces.len()).find(|at| is_value(pieces[*at])).unwrap_or(at);
                pieces[from] = PIECES[usize::from(what) % (PIECES.len() - 6)];
            }
            3 => pieces[at] = PIECES[usize::from(what) % PIECES.len()],
            4 => drop(pieces.remove(at)),
            _ => pieces.insert(at, pieces[usize::from(what) % pieces.len()]),
        }
    }
    pieces.concat()
}

/// Strings, punctuation, and what is between.
fn pieces(mut text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    while let Some(first) = text.chars().next() {
        let end = match first {
            '"' => 2 + text[1..].find('"').unwrap_or(text.len() - 2),
            ':' | ',' | '[' | ']' | '{' | '}' => 1,
            _ => text.find(['"', ':', ',', '[', ']', '{', '}']).unwrap_or(text.len()),
        };
        let (piece, rest) = text.split_at(end);
        pieces.push(piece);
        text = rest;
    }
    pieces
}
