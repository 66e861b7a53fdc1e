//! What documents and the tree as a whole must hold.

use std::collections::BTreeSet;

use regex::Regex;

use crate::tree::TextFile;

/// Places outside the repository that no file in it may point at.
const OUTSIDE: [&str; 2] = ["../shared", concat!("/wo", "rk/")];

/// Relative links in Markdown files that lead nowhere, and mentions of places outside the repository.
pub fn violations(files: &[TextFile]) -> Vec<String> {
    let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let markdown = files.iter().filter(|file| file.path.ends_with(".md"));
    let links = markdown.flat_map(|file| dead_links(file, files, &paths));
    links.chain(files.iter().flat_map(pointers_outside)).collect()
}

fn dead_links(file: &TextFile, files: &[TextFile], paths: &BTreeSet<&str>) -> Vec<String> {
    let targets = links(&prose(&file.text));
    let local = targets.into_iter().filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
    let dead = local.filter(|target| !resolves(file, target, files, paths));
    dead.map(|target| format!("{}: the link to {target} leads nowhere", file.path)).collect()
}

/// The text without code blocks and code spans, whose brackets are not links.
fn prose(text: &str) -> String {
    let blocks = text.split("```").step_by(2);
    blocks.flat_map(|block| block.split('`').step_by(2)).collect()
}

fn links(text: &str) -> Vec<String> {
    let pattern = Regex::new(r"\]\(([^)\s]+)(?:\s[^)]*)?\)");
    pattern.map_or_else(
        |_| Vec::new(),
        |pattern| pattern.captures_iter(text).filter_map(|found| Some(found.get(1)?.as_str().to_owned())).collect(),
    )
}

fn resolves(file: &TextFile, target: &str, files: &[TextFile], paths: &BTreeSet<&str>) -> bool {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if path.is_empty() { file.path.clone() } else { join(&file.path, path) };
    let directory = format!("{}/", path.trim_end_matches('/'));
    if paths.contains(path.as_str()) {
        let text = files.iter().find(|file| file.path == path).map_or("", |file| &file.text);
        anchor.is_empty() || !path.ends_with(".md") || headings(text).any(|heading| heading == anchor)
    } else {
        anchor.is_empty() && (path.is_empty() || paths.iter().any(|path| path.starts_with(&directory)))
    }
}

/// `target` seen from the file `from`, without `.` and `..`.
fn join(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The anchors of a Markdown text's headings: lower case, spaces as hyphens, other marks dropped.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|mark| mark.is_alphanumeric() || matches!(mark, ' ' | '-' | '_'));
        kept.map(|mark| if mark == ' ' { '-' } else { mark }).collect()
    })
}

fn pointers_outside(file: &TextFile) -> Vec<String> {
    if file.path.starts_with("tests/tidy/") {
        return Vec::new();
    }
    let found = OUTSIDE.iter().filter(|outside| file.text.contains(**outside));
    found.map(|outside| format!("{}: mentions {outside}, which is not in this repository", file.path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Vec<String> {
        let file = |path: &str, text: &str| TextFile { path: path.into(), text: text.into() };
        violations(&[file("docs/internals/store.md", text), file("README.md", "# The broker's store\n")])
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        assert_eq!(check("[r](../../README.md) [s](../../README.md#the-brokers-store) [d](../internals)"), [""; 0]);
        assert_eq!(check("`[x](nowhere)` [web](https://example.org/x) [top](#here)\n# Here\n"), [""; 0]);
    }

    #[test]
    fn dead_links_and_pointers_outside_are_found() {
        assert_eq!(check("[r](README.md)"), ["docs/internals/store.md: the link to README.md leads nowhere"]);
        assert_eq!(check("[r](../../README.md#missing)").len(), 1);
        assert_eq!(check("see ../shared/design.md").len(), 1);
    }
}
