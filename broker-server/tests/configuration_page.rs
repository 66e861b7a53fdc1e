//! The table of keys in docs/operating/configuration.md is the one in the code. `UPDATE=1` writes it.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use broker_server::config::keys::{KEYS, Key};

const BEGIN: &str = "<!-- keys: ";
const END: &str = "<!-- end of keys -->";

#[test]
fn the_page_lists_every_key_as_the_code_has_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating/configuration.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (marker, rest) = rest.split_once('\n').unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}{marker}\n{}{END}{after}", table());
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let actual = fs::read_to_string(&path).unwrap();
    assert_eq!(actual, expected, "run: UPDATE=1 cargo test -p broker-server --test configuration_page");
}

fn table() -> String {
    let mut table = String::from("\n| key | meaning | unit | default | bounds |\n|---|---|---|---|---|\n");
    for key in KEYS {
        let Key { name, unit, bounds, .. } = key;
        writeln!(table, "| `{name}` | {} | {unit} | {} | {bounds} |", meaning(key), default(key)).unwrap();
    }
    table.push('\n');
    table
}

fn meaning(key: &Key) -> String {
    let pending = key.pending.map(|reason| format!(" **Without effect: {reason}.**"));
    format!("{}{}", key.meaning, pending.unwrap_or_default())
}

/// Values stand in code, words do not.
fn default(key: &Key) -> String {
    let is_words = key.default.contains('`') || (key.default.contains(' ') && !key.default.contains('='));
    if key.default.is_empty() || is_words { key.default.to_string() } else { format!("`{}`", key.default) }
}
