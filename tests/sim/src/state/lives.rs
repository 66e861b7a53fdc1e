//! Operations in lives, each of which begins with nothing and must end with nothing, and what is said of one that fails.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::world::{Tally, World};

/// Operations of a life.
pub const LIFE: u64 = 50_000;
/// Operations a life that fails is lived again for at most, to find fewer that fail as well.
const SHRINK_MAX: u64 = 4_000_000;
/// So many of the operations that are needed are told one by one.
const TOLD_MAX: usize = 100;

/// An operation after which the two sides did not agree.
struct Failure {
    step: u64,
    what: String,
}

/// Does so many operations of a seed, from one on (a multiple of [`LIFE`]); says what did not agree, the operations that it takes, and how to do
/// them again. `progress` hears after each life how many operations are done.
pub fn run(seed: u64, from: u64, operations: u64, progress: &mut dyn FnMut(u64)) -> Result<Tally, String> {
    let (mut sum, mut first) = (Tally::default(), from);
    while first < from + operations {
        let last = (first + LIFE).min(from + operations);
        let steps: Vec<u64> = (first..last).collect();
        match live(seed, &steps, None) {
            Ok(tally) => sum.add(tally),
            Err(failure) => return Err(report(seed, &steps, &failure)),
        }
        first = last;
        progress(first - from);
    }
    Ok(sum)
}

/// Does these operations of a seed only, and tells each of them.
pub fn run_only(seed: u64, steps: &[u64]) -> (Vec<String>, Result<Tally, String>) {
    let mut told = Vec::new();
    let outcome = live(seed, steps, Some(&mut told));
    (told, outcome.map_err(|Failure { step, what }| format!("seed {seed}, step {step}: {what}")))
}

/// One life. A panic is a failure like any other.
fn live(seed: u64, steps: &[u64], told: Option<&mut Vec<String>>) -> Result<Tally, Failure> {
    let mut world = World::new(seed, told.is_some());
    let mut at = steps.first().copied().unwrap_or_default();
    let lived = catch_unwind(AssertUnwindSafe(|| {
        for &step in steps {
            at = step;
            world.operate(step)?;
        }
        world.finish()
    }));
    told.into_iter().for_each(|told| *told = world.told());
    let lived = lived.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    });
    lived.map(|()| world.tally).map_err(|what| Failure { step: at, what })
}

fn report(seed: u64, steps: &[u64], failure: &Failure) -> String {
    let Failure { step, what } = failure;
    let reached: Vec<u64> = steps.iter().copied().take_while(|other| other <= step).collect();
    let needed = shrunk(reached, |steps| live(seed, steps, None).err().map(|failure| failure.step));
    let (told, outcome) = run_only(seed, &needed);
    let mut text = format!("seed {seed}, step {step}: {what}\n");
    let lately = told.len().saturating_sub(TOLD_MAX);
    let _ = writeln!(text, "{} operations are enough, the last of which are:", needed.len());
    told.iter().skip(lately).for_each(|line| {
        let _ = writeln!(text, "  {line}");
    });
    if let Err(what) = outcome {
        let _ = writeln!(text, "after these: {what}");
    }
    let life = steps.first().copied().unwrap_or_default();
    let _ = writeln!(text, "again: ./dev operations --seed {seed} --from {life} --operations {}", step - life + 1);
    let only: Vec<String> = needed.iter().map(u64::to_string).collect();
    let _ = write!(text, "these only: ./dev operations --seed {seed} --only {}", only.join(","));
    text
}

/// Fewer of these operations, after which it fails as well: pieces are left out, smaller and smaller ones. `fails` says at which operation it does.
fn shrunk(mut steps: Vec<u64>, mut fails: impl FnMut(&[u64]) -> Option<u64>) -> Vec<u64> {
    let (mut budget, mut piece) = (SHRINK_MAX, steps.len().div_ceil(2));
    while piece > 0 {
        let (mut at, before) = (0, steps.len());
        while at < steps.len() {
            let end = (at + piece).min(steps.len());
            let fewer: Vec<u64> = [&steps[..at], &steps[end..]].concat();
            let Some(rest) = budget.checked_sub(fewer.len() as u64) else { return steps };
            budget = rest;
            match fails(&fewer) {
                Some(last) if !fewer.is_empty() => steps = fewer.into_iter().take_while(|step| *step <= last).collect(),
                _ => at = end,
            }
        }
        // Once more with the smallest pieces as long as that helps.
        piece = if piece == 1 && steps.len() < before { 1 } else { piece / 2 };
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_needed_to_fail_is_left_out() {
        let needed = [3, 77, 500];
        let fails = |steps: &[u64]| needed.iter().all(|step| steps.contains(step)).then_some(500);
        assert_eq!(shrunk((0..1000).collect(), fails), needed);
        assert_eq!(shrunk(vec![7], |steps| steps.first().copied()), [7]);
    }
}
