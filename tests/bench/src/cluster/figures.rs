//! What was measured in clusters, and the table of it.

use std::fmt::Write;
use std::io;

use crate::bars::show_ratio;
use crate::brokers::Kind;
use crate::report::show;

/// Which round stands for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// The lowest: CPU, to which disturbance only adds.
    Lowest,
    /// The median: rates and times.
    Median,
}

/// One figure of a step.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub name: String,
    pub value: f64,
    pub of: Of,
}

impl Figure {
    pub fn cpu(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value, of: Of::Lowest }
    }

    pub fn new(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value, of: Of::Median }
    }
}

/// What ours has to reach.
enum Bar {
    /// This value or less.
    AtMost(f64),
    /// This value or more.
    AtLeast(f64),
}

/// Step, figure, bar.
const BARS: &[(&str, &str, Bar)] = &[
    ("idle", "CPU % of a node", Bar::AtMost(1.0)),
    ("idle-many", "CPU % of a node", Bar::AtMost(1.0)),
    ("flows", "t1k forwarded, part of local", Bar::AtLeast(0.6)),
    ("flows", "ack1 forwarded, part of local", Bar::AtLeast(0.6)),
    ("flows", "p1k forwarded, part of local", Bar::AtLeast(0.6)),
    ("flows-own", "t1k forwarded, part of local", Bar::AtLeast(0.6)),
    ("flows-own", "ack1 forwarded, part of local", Bar::AtLeast(0.6)),
    ("flows-own", "p1k forwarded, part of local", Bar::AtLeast(0.6)),
    ("kill", "longest gap ms", Bar::AtMost(200.0)),
    ("lead", "longest gap ms", Bar::AtMost(200.0)),
    ("join", "s until it serves", Bar::AtMost(10.0)),
];

/// All figures of a run.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// In the order in which they came first.
    rows: Vec<Row>,
    failed: Vec<String>,
}

#[derive(Debug)]
struct Row {
    step: &'static str,
    name: String,
    of: Of,
    values: Vec<(Kind, f64)>,
}

impl Results {
    pub fn add(&mut self, step: &'static str, kind: Kind, figure: Figure) {
        let place = self.rows.iter().position(|row| row.step == step && row.name == figure.name);
        let place = place.unwrap_or_else(|| {
            self.rows.push(Row { step, name: figure.name, of: figure.of, values: Vec::new() });
            self.rows.len() - 1
        });
        if let Some(row) = self.rows.get_mut(place) {
            row.values.push((kind, figure.value));
        }
    }

    pub fn add_failed(&mut self, step: &'static str, kind: Kind, error: &io::Error) {
        self.failed.push(format!("{step} of {kind} was not measured: {error}"));
    }

    pub fn is_whole(&self) -> bool {
        self.failed.is_empty()
    }

    pub fn page(&self, steps: &[(&str, &str)]) -> String {
        let mut page = String::new();
        for failed in &self.failed {
            let _ = writeln!(page, "- **{failed}**");
        }
        page.push_str(
            "\n| step | figure | ours | RabbitMQ | ours / RabbitMQ | bar | met |\n|---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let (ours, theirs) = (row.figure(Kind::Ours), row.figure(Kind::RabbitMq));
            let ratio = ours.zip(theirs.filter(|theirs| *theirs > 0.0)).map(|(ours, theirs)| show_ratio(ours / theirs));
            let cells = [show(ours), show(theirs), ratio.unwrap_or_default(), verdict(row, ours)];
            let _ = writeln!(page, "| {} | {} | {} |", row.step, row.name, cells.join(" | "));
        }
        page.push_str("\n| step | what it does |\n|---|---|\n");
        for (name, about) in steps {
            let _ = writeln!(page, "| {name} | {about} |");
        }
        page
    }
}

/// The cells of the bar, if there is one.
fn verdict(row: &Row, ours: Option<f64>) -> String {
    let bar = BARS.iter().find(|(step, name, _)| *step == row.step && *name == row.name);
    let Some(((_, _, bar), ours)) = bar.zip(ours) else { return " | ".to_owned() };
    let (bar, met) = match bar {
        Bar::AtMost(most) => (format!("≤ {most}"), ours <= *most),
        Bar::AtLeast(least) => (format!("≥ {least}"), ours >= *least),
    };
    format!("{bar} | {}", if met { "yes" } else { "**no**" })
}

impl Row {
    fn figure(&self, kind: Kind) -> Option<f64> {
        let mut values: Vec<f64> = self.values.iter().filter(|(of, _)| *of == kind).map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        let last = values.len().checked_sub(1)?;
        match self.of {
            Of::Lowest => values.first().copied(),
            // Of an even number of rounds what lies between the two in the middle.
            Of::Median => Some((values.get(last / 2)? + values.get(last.div_ceil(2))?) / 2.0),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rounds_become_one_figure_and_bars_are_judged() {
        let mut results = Results::default();
        for (rate, part) in [(100.0, 0.5), (120.0, 0.59), (80.0, 0.7)] {
            results.add("flows", Kind::Ours, Figure::new("t1k forwarded, a second", rate));
            results.add("flows", Kind::Ours, Figure::new("t1k forwarded, part of local", part));
        }
        results.add("kill", Kind::Ours, Figure::new("longest gap ms", 20.0));
        results.add("kill", Kind::RabbitMq, Figure::new("longest gap ms", 40.0));
        let page = results.page(&[]);
        let lines: Vec<_> = page.lines().skip_while(|line| !line.starts_with("|---")).skip(1).collect();
        assert_eq!(lines[0], "| flows | t1k forwarded, a second | 100 |  |  |  |  |");
        assert_eq!(lines[1], "| flows | t1k forwarded, part of local | 0.590 |  |  | ≥ 0.6 | **no** |");
        assert_eq!(lines[2], "| kill | longest gap ms | 20.0 | 40.0 | 0.50 | ≤ 200 | yes |");
        assert!(results.is_whole());
    }
}
