//! The rows of docs/compatibility.md: a behaviour, the scenarios that show it, and how brokerd stands.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, awaited};

/// The heading after which the rows stand.
const HEADING: &str = "## Row by row";

/// A row: the scenarios it names (`subject/name` or `subject/*`) and its status.
#[derive(Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// The names between backticks in the second cell.
    pub scenarios: Vec<&'a str>,
    /// The third cell.
    pub status: &'a str,
}

/// The page as it is.
pub fn load() -> Result<String, Error> {
    fs::read_to_string(path()).map_err(|error| Error::new(format!("{}: {error}", path().display())))
}

/// Writes the page.
pub fn store(text: &str) -> Result<(), Error> {
    fs::write(path(), text).map_err(|error| Error::new(format!("{}: {error}", path().display())))
}

/// All rows.
pub fn rows(page: &str) -> Vec<Row<'_>> {
    page.lines().skip_while(|line| *line != HEADING).filter_map(row).collect()
}

/// The page with the status that each row has by these lists: `differs` when a scenario is accepted to, `awaited` when
/// brokerd does not pass one yet, else `as RabbitMQ`.
pub fn with_status(page: &str, awaited: &[&str], accepted: &[&str]) -> String {
    let mut below = false;
    let lines = page.lines().map(|line| {
        below |= line == HEADING;
        let Some(row) = row(line).filter(|_| below) else { return format!("{line}\n") };
        let status = status(&row.scenarios, awaited, accepted);
        let kept = line.trim_end_matches('|').trim_end().strip_suffix(row.status).unwrap_or(line).trim_end();
        format!("{kept} {status} |\n")
    });
    lines.collect()
}

fn status(scenarios: &[&str], awaited: &[&str], accepted: &[&str]) -> &'static str {
    // Either side may be a whole subject.
    let meets = |one: &&str, other: &&str| awaited::covers(one, other) || awaited::covers(other, one);
    let any = |list: &[&str]| scenarios.iter().any(|one| list.iter().any(|other| meets(one, other)));
    if any(awaited) {
        "awaited"
    } else if any(accepted) {
        "differs"
    } else {
        "as RabbitMQ"
    }
}

fn row(line: &str) -> Option<Row<'_>> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    let [_, names, status] = cells.as_slice() else { return None };
    let scenarios: Vec<&str> = names.split('`').filter(|name| name.contains('/')).collect();
    if scenarios.is_empty() { None } else { Some(Row { scenarios, status }) }
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "| a/x, `a/x` | b | c |\n## Row by row\n| behaviour | scenarios | status |\n|---|---|---|\n\
         | one | `a/x`, `b/*` |  |\n| two | `a/y` | awaited |\n| three | `a/z` | |\n";

    #[test]
    fn rows_stand_below_the_heading() {
        let expected = [
            Row { scenarios: vec!["a/x", "b/*"], status: "" },
            Row { scenarios: vec!["a/y"], status: "awaited" },
            Row { scenarios: vec!["a/z"], status: "" },
        ];
        assert_eq!(rows(PAGE), expected);
    }

    #[test]
    fn status_follows_the_lists_and_the_rest_stays() {
        let page = with_status(PAGE, &["b/p"], &["a/z"]);
        let expected = PAGE
            .replace("`b/*` |  |", "`b/*` | awaited |")
            .replace("awaited |\n| three", "as RabbitMQ |\n| three")
            .replace("`a/z` | |", "`a/z` | differs |");
        assert_eq!(page, expected);
        assert_eq!(with_status(&page, &["b/p"], &["a/z"]), page);
    }
}
