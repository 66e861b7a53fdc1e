//! The workspace as `cargo metadata` tells it.

use std::process::Command;

use serde::Deserialize;

use crate::tree::root;

/// The packages of the workspace.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    /// One for each crate.
    pub packages: Vec<Package>,
}

/// A crate of the workspace.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// What its Cargo.toml asks for.
    pub dependencies: Vec<Dependency>,
}

/// A line under `[dependencies]`, `[dev-dependencies]` or `[build-dependencies]`.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// The package it names.
    pub name: String,
    /// Normal (`None`), `dev` or `build`.
    pub kind: Option<String>,
}

/// Asks cargo.
pub fn metadata() -> std::io::Result<Metadata> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--no-deps"]).current_dir(root());
    let output = command.output()?;
    if !output.status.success() {
        return Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
