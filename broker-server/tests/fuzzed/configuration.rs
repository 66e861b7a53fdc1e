//! Configuration files: they load, or every error names the file and a line that is there; what loads is printed as a file that loads the same.

use std::fs;
use std::path::Path;

use broker_server::args::Args;
use broker_server::config::keys::KEYS;
use broker_server::config::{Config, ConfigErrors, Environment, Origin, REDACTED, load};

/// The first octet that stands for a file whose content is the others as they are.
const RAW: u8 = 255;
const VALUES: [&str; 20] = [
    "true",
    "false",
    "none",
    "infinity",
    "0",
    "1",
    "65536",
    "-1",
    "1.5",
    "0.4",
    "2GB",
    "1h",
    "guest",
    "127.0.0.1:5672",
    "[::1]:5672",
    "$(HOME)",
    "'quoted'",
    "PLAIN",
    "verify_peer",
    "",
];

/// Writes a file into the directory and loads it.
pub fn live(directory: &Path, octets: &[u8]) {
    let text = match octets.split_first() {
        Some((&RAW, rest)) => rest.to_vec(),
        _ => lines(octets).into_bytes(),
    };
    let lines = text.split(|octet| *octet == b'\n').count();
    match loaded(directory, &text) {
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for complaint in errors.0 {
                if let Origin::File { line, .. } = complaint.origin {
                    assert!((1..=lines.max(1)).contains(&line), "{complaint:?}");
                }
            }
        }
        Ok((config, printed)) => {
            // A secret is not printed, and so does not come back.
            let has_secret = KEYS.iter().any(|key| key.secret && String::from_utf8_lossy(&text).contains(key.name));
            let shown: String =
                printed.lines().filter(|line| !line.contains(REDACTED)).map(|line| format!("{line}\n")).collect();
            let again = loaded(directory, shown.as_bytes()).unwrap_or_else(|errors| panic!("{errors}: {shown}"));
            assert!(has_secret || again.0 == config, "{shown}");
        }
    }
}

fn loaded(directory: &Path, text: &[u8]) -> Result<(Config, String), ConfigErrors> {
    let path = directory.join("rabbitmq.conf");
    fs::write(&path, text).unwrap();
    let loaded = load(&Args { config: Some(path), ..Args::default() }, &Environment::default())?;
    let printed = loaded.print();
    Ok((loaded.config, printed))
}

fn lines(octets: &[u8]) -> String {
    let line = |order: &[u8]| {
        let &[high, low, value, how] = order else { return String::new() };
        let key =
            KEYS[usize::from(u16::from_be_bytes([high, low])) % KEYS.len()].name.replace('$', &(how % 3).to_string());
        let value = VALUES[usize::from(value) % VALUES.len()];
        match how % 8 {
            0 => format!("{key}={value}\n"),
            1 => format!("  {key} = {value} # why\n"),
            2 => format!("{key}.{value} = {value}\n"),
            3 => format!("# {key}\n\n"),
            _ => format!("{key} = {value}\n"),
        }
    };
    octets.chunks(4).map(line).collect()
}
