//! The rules applied to this repository.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::process::Command;

use tidy::floors::{self, Member};
use tidy::tree::{TextFile, root, text_files};
use tidy::workspace::{Metadata, Package, metadata};
use tidy::{documents, sources};

fn none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

fn files() -> Vec<TextFile> {
    let files = text_files().unwrap();
    assert!(files.len() > 50, "only {} files found: looked in the wrong place", files.len());
    files
}

fn member<'a>(package: &'a Package, ours: &[&str]) -> Member<'a> {
    let asked = || package.dependencies.iter();
    let uses = asked().map(|one| one.name.as_str()).filter(|one| ours.contains(one) && *one != package.name);
    let links = asked().filter(|one| one.kind.is_none()).map(|one| one.name.as_str());
    Member { name: &package.name, uses: uses.collect(), links: links.collect() }
}

fn members(metadata: &Metadata) -> Vec<Member<'_>> {
    let ours: Vec<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    metadata.packages.iter().map(|package| member(package, &ours)).collect()
}

#[test]
fn dependencies_point_down_only() {
    let metadata = metadata().unwrap();
    let members = members(&metadata);
    assert!(members.iter().any(|member| member.links.contains(&"bytes")), "no dependencies were read");
    none(floors::violations(&members));
}

#[test]
fn sources_keep_the_rules() {
    none(sources::violations(&files()));
}

#[test]
fn documents_point_at_what_exists() {
    none(documents::violations(&files()));
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let manifests = files().into_iter().filter(|file| file.path.ends_with("Cargo.toml") && file.path != "Cargo.toml");
    let without = manifests.filter(|file| {
        // A cargo-fuzz crate is a workspace of its own.
        !file.text.contains("[workspace]") && !file.text.contains("[lints]\nworkspace = true\n")
    });
    none(without.map(|file| format!("{} does not say `[lints] workspace = true`", file.path)).collect());
}

#[test]
fn the_lock_file_is_committed() {
    let output = Command::new("git").args(["ls-files", "--error-unmatch", "Cargo.lock"]).current_dir(root()).output();
    assert!(output.unwrap().status.success(), "Cargo.lock is not tracked by git");
    assert!(!fs::read_to_string(root().join(".gitignore")).unwrap().contains("Cargo.lock"));
}
