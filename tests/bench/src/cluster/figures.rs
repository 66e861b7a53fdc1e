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
    /// This part of another figure of the same step, or more.
    PartOf(&'static str, f64),
}

/// Step, figure, bar.
const BARS: &[(&str, &str, Bar)] = &[
    ("idle", "CPU % of a node", Bar::AtMost(1.0)),
    ("idle-many", "CPU % of a node", Bar::AtMost(1.0)),
    ("flows", "t1k forwarded, a second", Bar::PartOf("t1k local, a second", 0.6)),
    ("flows", "ack1 forwarded, a second", Bar::PartOf("ack1 local, a second", 0.6)),
    ("flows", "p1k forwarded, a second", Bar::PartOf("p1k local, a second", 0.6)),
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
            "| step | figure | ours | RabbitMQ | ours / RabbitMQ | bar | met |\n|---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let (ours, theirs) = (row.figure(Kind::Ours), row.figure(Kind::RabbitMq));
            let ratio = ours.zip(theirs.filter(|theirs| *theirs > 0.0)).map(|(ours, theirs)| show_ratio(ours / theirs));
            let cells = [show(ours), show(theirs), ratio.unwrap_or_default(), self.verdict(row, ours)];
            let _ = writeln!(page, "| {} | {} | {} |", row.step, row.name, cells.join(" | "));
        }
        page.push_str("\n| step | what it does |\n|---|---|\n");
        for (name, about) in steps {
            let _ = writeln!(page, "| {name} | {about} |");
        }
        page
    }

    /// The cells of the bar, if there is one.
    fn verdict(&self, row: &Row, ours: Option<f64>) -> String {
        let bar = BARS.iter().find(|(step, name, _)| *step == row.step && *name == row.name);
        let Some(((_, _, bar), ours)) = bar.zip(ours) else { return " | ".to_owned() };
        let (bar, met) = match bar {
            Bar::AtMost(most) => (format!("≤ {most}"), Some(ours <= *most)),
            Bar::PartOf(whole, part) => {
                let whole = self.rows.iter().find(|other| other.step == row.step && other.name == *whole);
                let reached = whole.and_then(|whole| whole.figure(Kind::Ours)).map(|whole| ours / whole);
                let shown = reached.map(|reached| format!(", is {reached:.2}")).unwrap_or_default();
                (format!("≥ {part} of local{shown}"), reached.map(|reached| reached >= *part))
            }
        };
        let met = met.map_or("", |met| if met { "yes" } else { "**no**" });
        format!("{bar} | {met}")
    }
}

impl Row {
    fn figure(&self, kind: Kind) -> Option<f64> {
        let mut values: Vec<f64> = self.values.iter().filter(|(of, _)| *of == kind).map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        values.get(if self.of == Of::Lowest { 0 } else { values.len() / 2 }).copied()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rounds_become_one_figure_and_bars_are_judged() {
        let mut results = Results::default();
        for (local, forwarded) in [(100.0, 50.0), (120.0, 59.0), (80.0, 70.0)] {
            results.add("flows", Kind::Ours, Figure::new("t1k local, a second", local));
            results.add("flows", Kind::Ours, Figure::new("t1k forwarded, a second", forwarded));
        }
        results.add("kill", Kind::Ours, Figure::new("longest gap ms", 20.0));
        results.add("kill", Kind::RabbitMq, Figure::new("longest gap ms", 40.0));
        let page = results.page(&[]);
        let lines: Vec<_> = page.lines().skip(2).collect();
        assert_eq!(lines[0], "| flows | t1k local, a second | 100 |  |  |  |  |");
        assert_eq!(lines[1], "| flows | t1k forwarded, a second | 59.0 |  |  | ≥ 0.6 of local, is 0.59 | **no** |");
        assert_eq!(lines[2], "| kill | longest gap ms | 20.0 | 40.0 | 0.50 | ≤ 200 | yes |");
        assert!(results.is_whole());
    }
}
