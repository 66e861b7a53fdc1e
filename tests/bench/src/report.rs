//! What was measured as a page for docs/: the machine, the commands, a table of ratios against the bars.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::bars::{self, Bar};
use crate::brokers::Kind;
use crate::checker::Faults;
use crate::workload::{Metric, Metrics, Workload};

/// All rounds of a bench.
#[derive(Debug, Default)]
pub struct Results {
    rounds: BTreeMap<(&'static str, Kind), Vec<Metrics>>,
    /// Runs that count for nothing.
    spoilt: Vec<(&'static str, Kind, String)>,
    remembered: Vec<Kind>,
}

impl Results {
    /// Adds a round.
    pub fn add(&mut self, workload: &'static str, kind: Kind, metrics: Metrics) {
        self.rounds.entry((workload, kind)).or_default().push(metrics);
    }

    /// Notes a run in which deliveries were wrong.
    pub fn add_spoilt(&mut self, workload: &'static str, kind: Kind, faults: &Faults) {
        self.spoilt.push((workload, kind, faults.to_string()));
    }

    /// Notes a run that could not be made.
    pub fn add_failed(&mut self, workload: &'static str, kind: Kind, error: &std::io::Error) {
        self.spoilt.push((workload, kind, format!("not run to its end: {error}")));
    }

    /// Notes that figures of this broker come from an earlier bench on this machine.
    pub fn add_remembered(&mut self, kind: Kind) {
        if !self.remembered.contains(&kind) {
            self.remembered.push(kind);
        }
    }

    /// How many runs count for nothing.
    #[must_use]
    pub fn spoilt(&self) -> usize {
        self.spoilt.len()
    }

    /// The figure that stands for all rounds. A broker with a spoilt run of the workload has none.
    #[must_use]
    pub fn figure(&self, workload: &str, kind: Kind, metric: Metric) -> Option<f64> {
        if self.spoilt.iter().any(|(of, by, _)| *of == workload && *by == kind) {
            return None;
        }
        let rounds = self.rounds.iter().find(|((of, by), _)| *of == workload && *by == kind)?.1;
        let values: Vec<f64> = rounds.iter().filter_map(|metrics| metrics.get(&metric).copied()).collect();
        metric.of_rounds(&values)
    }

    fn metrics_of(&self, workload: &str) -> Vec<Metric> {
        let rounds = self.rounds.iter().filter(|((of, _), _)| *of == workload);
        let mut metrics: Vec<Metric> =
            rounds.flat_map(|(_, rounds)| rounds.iter().flat_map(BTreeMap::keys)).copied().collect();
        metrics.sort_unstable();
        metrics.dedup();
        metrics
    }

    /// The page.
    #[must_use]
    pub fn page(&self, about: &About, kinds: &[Kind]) -> String {
        let mut page = String::new();
        let _ = write!(page, "{INTRODUCTION}\n## The run\n\n{about}\n");
        if !self.remembered.is_empty() {
            let names: Vec<_> = self.remembered.iter().map(Kind::to_string).collect();
            let _ = writeln!(
                page,
                "**Not side by side:** figures of {} are remembered from an earlier bench.\n",
                names.join(" and ")
            );
        }
        for (workload, kind, why) in &self.spoilt {
            let _ = writeln!(page, "- **{workload} on {kind} counts for nothing:** {why}");
        }
        let _ = writeln!(page, "\n## Figures\n\n{}", self.table(kinds));
        let _ = writeln!(page, "## Workloads\n\n| name | what it does |\n|---|---|");
        for workload in Workload::all() {
            let _ = writeln!(page, "| {} | {} |", workload.name, workload.about);
        }
        page
    }

    fn table(&self, kinds: &[Kind]) -> String {
        let mut table = String::from(
            "| workload | figure | ours | RabbitMQ | null | ours / RabbitMQ | bar | ours / null | bar | met |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
        );
        for workload in Workload::all() {
            for metric in self.metrics_of(workload.name) {
                let figure = |kind| self.figure(workload.name, kind, metric).filter(|_| kinds.contains(&kind));
                let row = Row {
                    bar: bars::find(workload.name, metric),
                    metric,
                    ours: figure(Kind::Ours),
                    rabbitmq: figure(Kind::RabbitMq),
                    null: figure(Kind::Null),
                };
                let _ = writeln!(table, "| {} | {} | {} |", workload.name, metric.title(), row.cells());
            }
        }
        let (many, compete) =
            (self.figure("many", Kind::Ours, Metric::Rate), self.figure("compete", Kind::Ours, Metric::Rate));
        if let (Some(many), Some(compete)) = (many, compete) {
            let met = if many / compete >= bars::MANY_TO_COMPETE { "yes" } else { "**no**" };
            let _ = writeln!(
                table,
                "| many | rate / our own rate of compete | {:.2} | | | | | | {} | {met} |",
                many / compete,
                bars::MANY_TO_COMPETE
            );
        }
        table
    }
}

/// One line of the table.
struct Row {
    metric: Metric,
    bar: Option<Bar>,
    ours: Option<f64>,
    rabbitmq: Option<f64>,
    null: Option<f64>,
}

impl Row {
    fn cells(&self) -> String {
        let ratio = |other: Option<f64>| Some(self.ours? / other.filter(|&other| other > 0.0)?);
        let (to_rabbitmq, to_null) = (ratio(self.rabbitmq), ratio(self.null));
        let limits = (self.bar.and_then(|bar| bar.rabbitmq), self.bar.and_then(|bar| bar.null));
        let verdicts: Vec<bool> = [(to_rabbitmq, limits.0), (to_null, limits.1)]
            .into_iter()
            .filter_map(|(ratio, limit)| Some(bars::is_met(self.metric, ratio?, limit?)))
            .collect();
        let met = match verdicts.as_slice() {
            [] => "",
            all if all.iter().all(|met| *met) => "yes",
            _ => "**no**",
        };
        [
            show(self.ours),
            show(self.rabbitmq),
            show(self.null),
            to_rabbitmq.map(bars::show_ratio).unwrap_or_default(),
            limits.0.map(bars::show_ratio).unwrap_or_default(),
            to_null.map(bars::show_ratio).unwrap_or_default(),
            limits.1.map(bars::show_ratio).unwrap_or_default(),
            met.to_owned(),
        ]
        .join(" | ")
    }
}

/// Where and how a bench ran.
#[derive(Clone, Debug)]
pub struct About {
    /// The machine in a line.
    pub machine: String,
    /// When, and from which commit.
    pub when: String,
    /// The command that repeats it.
    pub command: String,
    /// Rounds and sizes.
    pub scale: String,
}

impl std::fmt::Display for About {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(formatter, "- machine: {}", self.machine)?;
        writeln!(formatter, "- when: {}", self.when)?;
        writeln!(formatter, "- command: `{}`", self.command)?;
        writeln!(formatter, "- scale: {}", self.scale)
    }
}

const INTRODUCTION: &str = "# Benchmarks

Written by `./dev bench --out docs/benchmarks.md`; do not edit. Ours, RabbitMQ 3.10.8 and a *null broker* (one thread that
only frames and forwards, with `+fsync` one preallocated log and fdatasync before a confirm) take turns under the same load
on the same machine, so the ratios mean more than the figures. The load generator is one process with one thread beside the
brokers. It checks every delivery: sequence, duplicates, order, body, properties, envelope, redelivered flag, confirms; a run
with a fault counts for nothing. CPU is user and system time of all processes of the broker, from the kernel's accounting,
lowest of the rounds; memory likewise; rates and times are the median. At most 4 MiB and 128 KiB a producer are on their way at
the same time, for every broker the same.
";

/// A figure with three digits, or more before the point.
pub(crate) fn show(figure: Option<f64>) -> String {
    match figure {
        None => String::new(),
        Some(figure) if figure >= 1000.0 => grouped(figure),
        Some(figure) if figure >= 100.0 => format!("{figure:.0}"),
        Some(figure) if figure >= 10.0 => format!("{figure:.1}"),
        Some(figure) if figure >= 1.0 => format!("{figure:.2}"),
        Some(figure) => format!("{figure:.3}"),
    }
}

/// A whole number with commas between the thousands.
fn grouped(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::checker::FaultKind;

    fn results(ours: f64) -> Results {
        let mut results = Results::default();
        for (kind, cpu) in [(Kind::Ours, ours), (Kind::RabbitMq, 14.0), (Kind::Null, 0.05)] {
            results.add("t16", kind, [(Metric::CpuUs, cpu)].into());
            results.add("t16", kind, [(Metric::CpuUs, cpu * 2.0)].into());
        }
        results
    }

    #[test]
    fn a_row_holds_ratios_and_the_verdict() {
        let all = [Kind::Ours, Kind::RabbitMq, Kind::Null];
        let line = results(0.19).table(&all).lines().nth(2).unwrap().to_owned();
        assert_eq!(line, "| t16 | CPU µs a message | 0.190 | 14.0 | 0.050 | 1/74 | 1/70 | 3.80 | 4.00 | yes |");
        assert!(results(0.3).table(&all).contains("**no**"));
    }

    #[test]
    fn a_spoilt_run_has_no_figure_and_is_named() {
        let mut results = results(0.1);
        let mut faults = Faults::default();
        faults.add(FaultKind::Lost, || "7".to_owned());
        results.add_spoilt("t16", Kind::Ours, &faults);
        assert_eq!(results.figure("t16", Kind::Ours, Metric::CpuUs), None);
        let about = About { machine: String::new(), when: String::new(), command: String::new(), scale: String::new() };
        assert!(results.page(&about, &[Kind::Ours]).contains("t16 on ours counts for nothing"));
    }

    #[test]
    fn large_figures_are_grouped() {
        assert_eq!(grouped(1_234_567.0), "1,234,567");
        assert_eq!(grouped(123_456.0), "123,456");
    }
}
