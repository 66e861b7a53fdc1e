//! The figures to reach, as ratios to the brokers measured beside ours.

use crate::workload::Metric;

/// What one metric of one workload should reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    /// The workload's name.
    pub workload: &'static str,
    /// The metric.
    pub metric: Metric,
    /// Ours divided by RabbitMQ's.
    pub rabbitmq: Option<f64>,
    /// Ours divided by the null broker's.
    pub null: Option<f64>,
}

/// All bars of a single node.
pub const BARS: &[Bar] = &[
    bar("t16", Metric::CpuUs, Some(1.0 / 70.0), Some(4.0)),
    bar("t1k", Metric::CpuUs, Some(1.0 / 25.0), Some(1.75)),
    bar("t64k", Metric::CpuUs, Some(1.0 / 2.2), Some(1.35)),
    bar("ack1", Metric::CpuUs, Some(1.0 / 80.0), Some(4.0)),
    bar("many", Metric::CpuUs, Some(1.0 / 50.0), Some(4.0)),
    bar("fan10", Metric::CpuUs, Some(1.0 / 100.0), None),
    bar("p16", Metric::CpuUs, Some(1.0 / 60.0), Some(2.0)),
    bar("p1k", Metric::CpuUs, Some(1.0 / 25.0), Some(1.6)),
    bar("p1k", Metric::ConfirmP50Ms, Some(1.0 / 10.0), Some(1.5)),
    bar("pingpong", Metric::RoundP50Us, Some(0.75), Some(1.3)),
    bar("pingpong", Metric::RoundCpuUs, Some(0.42), Some(1.3)),
    bar("churn", Metric::ChurnCpuMs, Some(1.0 / 20.0), Some(2.6)),
    bar("backlog", Metric::CpuInUs, Some(1.0 / 80.0), None),
    bar("backlog", Metric::CpuOutUs, Some(1.0 / 80.0), None),
    bar("backlog", Metric::GrowthMib, Some(1.0 / 90.0), None),
    bar("idle", Metric::EachKib, Some(1.0 / 20.0), None),
    bar("queues", Metric::EachKib, Some(1.0 / 16.0), None),
    bar("queues", Metric::DeclareRate, Some(50.0), None),
];

/// The rate of `many` divided by that of `compete`, both ours, should be at least this: queues must not cost.
pub const MANY_TO_COMPETE: f64 = 0.8;

const fn bar(workload: &'static str, metric: Metric, rabbitmq: Option<f64>, null: Option<f64>) -> Bar {
    Bar { workload, metric, rabbitmq, null }
}

/// The bar of this metric, if it has one.
#[must_use]
pub fn find(workload: &str, metric: Metric) -> Option<Bar> {
    BARS.iter().copied().find(|bar| bar.workload == workload && bar.metric == metric)
}

/// Whether a ratio reaches the limit.
#[must_use]
pub fn is_met(metric: Metric, ratio: f64, limit: f64) -> bool {
    if metric.more_is_better() { ratio >= limit } else { ratio <= limit }
}

/// A ratio as people write it: `1/70`, `1.75`, `50`.
#[must_use]
pub fn show_ratio(ratio: f64) -> String {
    match ratio {
        ratio if ratio <= 0.0 => "0".to_owned(),
        ratio if ratio < 0.4 && 1.0 / ratio < 10.0 => format!("1/{:.1}", 1.0 / ratio),
        ratio if ratio < 0.4 => format!("1/{:.0}", 1.0 / ratio),
        ratio if ratio < 10.0 => format!("{ratio:.2}"),
        ratio => format!("{ratio:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Workload;

    #[test]
    fn each_bar_belongs_to_a_workload() {
        let names: Vec<_> = Workload::all().iter().map(|workload| workload.name).collect();
        assert!(BARS.iter().all(|bar| names.contains(&bar.workload)));
    }

    #[test]
    fn a_bar_of_a_rate_is_met_from_below() {
        assert!(is_met(Metric::DeclareRate, 51.0, 50.0) && !is_met(Metric::DeclareRate, 49.0, 50.0));
        assert!(is_met(Metric::CpuUs, 0.5, 1.0) && !is_met(Metric::CpuUs, 1.1, 1.0));
    }

    #[test]
    fn ratios_read_well() {
        assert_eq!(
            [1.0 / 70.0, 1.0 / 2.2, 1.0 / 4.5, 1.75, 50.0].map(show_ratio),
            ["1/70", "0.45", "1/4.5", "1.75", "50"]
        );
    }
}
