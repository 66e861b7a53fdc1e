//! Tables: columns with names, rows of values, written as text or JSON.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::exit::Failure;

/// A column is made this wide for its longest cell, in characters; a longer cell pushes its own row only.
const WIDTH_MAX: usize = 255;

/// A table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Names of the columns.
    pub columns: Vec<&'static str>,
    /// Rows, each with a value for each column.
    pub rows: Vec<Vec<Value>>,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[&'static str], rows: Vec<Vec<Value>>) -> Self {
        Self { columns: columns.to_vec(), rows }
    }

    /// The same with these columns only, in this order.
    pub fn select(self, wanted: &[&str]) -> Result<Table, Failure> {
        let mut places = Vec::new();
        let mut unknown = Vec::new();
        for name in wanted {
            match self.columns.iter().position(|column| column == name) {
                Some(place) => places.push(place),
                None => unknown.push(*name),
            }
        }
        if !unknown.is_empty() {
            let known = self.columns.join(", ");
            return Err(Failure::usage(format!(
                "Info key(s) {} are not supported; there are {known}",
                unknown.join(", ")
            )));
        }
        let columns = places.iter().filter_map(|&place| self.columns.get(place).copied()).collect();
        let row = |row: Vec<Value>| places.iter().filter_map(|&place| row.get(place).cloned()).collect();
        Ok(Table { columns, rows: self.rows.into_iter().map(row).collect() })
    }

    /// For people: columns beneath each other.
    pub fn aligned(&self) -> String {
        let mut lines: Vec<Vec<String>> = vec![self.columns.iter().map(|column| column.to_uppercase()).collect()];
        lines.extend(self.rows.iter().map(|row| row.iter().map(plain).collect()));
        let width_of = |column: usize| {
            let widths = lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count());
            widths.max().unwrap_or_default().min(WIDTH_MAX)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width_of).collect();
        let mut text = String::new();
        for line in &lines {
            let mut padded = String::new();
            for (cell, width) in line.iter().zip(&widths) {
                // Writing to a string cannot fail.
                let _ = write!(padded, "{cell:width$}  ");
            }
            text.push_str(padded.trim_end());
            text.push('\n');
        }
        text
    }

    /// As rabbitmqctl: tabs between values, arguments as Erlang terms.
    pub fn tabbed(&self, headers: bool) -> String {
        let mut text = String::new();
        if headers && !self.rows.is_empty() {
            text.push_str(&self.columns.join("\t"));
            text.push('\n');
        }
        for row in &self.rows {
            text.push_str(&row.iter().map(erlang).collect::<Vec<_>>().join("\t"));
            text.push('\n');
        }
        text
    }

    /// A list of objects.
    pub fn json(&self) -> String {
        let object = |row: &Vec<Value>| -> Map<String, Value> {
            self.columns.iter().zip(row).map(|(column, value)| ((*column).to_owned(), value.clone())).collect()
        };
        let lines: Vec<String> = self.rows.iter().map(|row| Value::Object(object(row)).to_string()).collect();
        format!("[\n{}\n]\n", lines.join(",\n"))
    }
}

/// A value in a cell; what could forge a line or command a terminal is escaped.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escaped(text),
        // JSON escapes some control characters, not all.
        other => escaped(&other.to_string()),
    }
}

/// A cell as rabbitmqctl writes it.
fn erlang(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escaped(text),
        // Tags stand in brackets without quotes.
        Value::Array(values) if values.iter().all(Value::is_string) => {
            format!("[{}]", values.iter().map(plain).collect::<Vec<_>>().join(", "))
        }
        other => escaped(&term(other)),
    }
}

fn term(value: &Value) -> String {
    let list = |items: Vec<String>| format!("[{}]", items.join(","));
    match value {
        Value::Array(values) => list(values.iter().map(term).collect()),
        Value::Object(fields) => list(
            fields.iter().map(|(key, value)| format!("{{{},{}}}", Value::from(key.as_str()), term(value))).collect(),
        ),
        other => other.to_string(),
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn table() -> Table {
        let arguments = json!({"x-max-length": 5, "t": {"a": [1, "b"]}});
        Table::new(
            &["name", "messages", "arguments", "tags"],
            vec![
                vec!["long name".into(), 3.into(), arguments, json!(["a", "b"])],
                vec!["\x1b[2J".into(), 0.into(), json!({}), json!([])],
            ],
        )
    }

    #[test]
    fn columns_stand_beneath_each_other() {
        let text = table().select(&["name", "messages"]).unwrap().aligned();
        assert_eq!(text, "NAME       MESSAGES\nlong name  3\n\\u{1b}[2J  0\n");
    }

    #[test]
    fn nothing_in_a_cell_reaches_the_terminal_as_a_command() {
        let hostile = "\u{9b}2J\x7f\x1b[2J\n";
        let cells = vec![hostile.into(), json!({hostile: [hostile, {"a": hostile}]}), json!([hostile])];
        let table = Table::new(&["a", "b", "c"], vec![cells]);
        for text in [table.aligned(), table.tabbed(true)] {
            assert!(!text.chars().any(|one| one.is_control() && one != '\n' && one != '\t'), "{text:?}");
            assert_eq!(text.lines().count(), 2);
        }
    }

    #[test]
    fn one_long_cell_does_not_fill_all_rows() {
        let row = |text: &str| vec![text.into(), 1.into()];
        let table = Table::new(&["a", "b"], vec![row(&"x".repeat(10_000)), row("y"), row("z")]);
        let text = table.aligned();
        assert!(text.len() < 10_000 + 4 * (WIDTH_MAX + 10), "{}", text.len());
    }

    #[test]
    fn rabbitmqs_tools_see_tabs_and_terms() {
        let text = table().tabbed(true);
        assert_eq!(
            text,
            "name\tmessages\targuments\ttags\nlong name\t3\t[{\"t\",[{\"a\",[1,\"b\"]}]},{\"x-max-length\",5}]\t[a, b]\n\\u{1b}[2J\t0\t[]\t[]\n"
        );
        assert_eq!(Table::new(&["name"], Vec::new()).tabbed(true), "");
    }

    #[test]
    fn json_is_a_list_of_objects() {
        let parsed: Value = serde_json::from_str(&table().json()).unwrap();
        assert_eq!(parsed[0]["arguments"]["x-max-length"], 5);
        assert_eq!(parsed[1]["name"], "\x1b[2J");
    }

    #[test]
    fn unknown_columns_are_refused() {
        assert!(
            table().select(&["name", "bogus"]).unwrap_err().text.starts_with("Info key(s) bogus are not supported")
        );
    }
}
