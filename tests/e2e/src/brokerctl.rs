//! Runs of brokerctl.
#![allow(clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::Output;

/// What a run came to.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let text = |octets: Vec<u8>| String::from_utf8(octets).expect("brokerctl writes UTF-8");
        let code = output.status.code().expect("brokerctl ends by itself");
        Ran { code, out: text(output.stdout), err: text(output.stderr) }
    }
}

/// The program beside another of the same build.
#[must_use]
pub fn program_beside(other: &str) -> PathBuf {
    let path = Path::new(other).with_file_name("brokerctl");
    assert!(path.is_file(), "{} is missing: cargo build -p broker-ctl", path.display());
    path
}
