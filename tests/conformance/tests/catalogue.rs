//! What must hold of the scenarios, recordings and accepted differences whatever the broker does.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use conformance::recorded::Whose;
use conformance::{accepted, recorded, script};

#[test]
fn at_least_150_scenarios_and_no_name_twice() {
    let scenarios = script::all().unwrap();
    let names: BTreeSet<_> = scenarios.iter().map(|scenario| &scenario.name).collect();
    assert_eq!(names.len(), scenarios.len());
    assert!(names.len() >= 150, "only {} scenarios", names.len());
}

#[test]
fn every_scenario_is_recorded_and_no_recording_is_left_over() {
    let scenarios: BTreeSet<String> = script::all().unwrap().into_iter().map(|scenario| scenario.name).collect();
    let recordings: BTreeSet<String> = recorded::names(Whose::RabbitMqs).unwrap().into_iter().collect();
    assert_eq!(scenarios, recordings);
}

#[test]
fn recordings_are_of_the_scenarios_as_they_are() {
    for scenario in script::all().unwrap() {
        let recorded = recorded::load(Whose::RabbitMqs, &scenario.name).unwrap();
        let steps: Vec<&str> = recorded.iter().filter_map(|line| line.strip_prefix("> ")).collect();
        assert_eq!(steps, scenario.steps, "{}: record it again", scenario.name);
    }
}

#[test]
fn no_recording_shows_a_broken_frame() {
    for name in recorded::names(Whose::RabbitMqs).unwrap() {
        let broken = recorded::load(Whose::RabbitMqs, &name).unwrap().iter().any(|line| line.contains(" BROKEN "));
        assert!(!broken, "{name}");
    }
}

#[test]
fn accepted_differences_name_a_scenario_and_stand_in_the_compatibility_page() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compatibility.md");
    let page = fs::read_to_string(&page).unwrap_or_default();
    let scenarios: BTreeSet<String> = script::all().unwrap().into_iter().map(|scenario| scenario.name).collect();
    let accepted = accepted::all().unwrap();
    let mut names: Vec<&str> = accepted.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(recorded::names(Whose::Ours).unwrap(), names, "what is pinned in accepted/ and named in accepted.txt");
    for (name, reason) in accepted {
        let (theirs, ours) = (recorded::load(Whose::RabbitMqs, name), recorded::load(Whose::Ours, name));
        assert_ne!(theirs.unwrap(), ours.unwrap(), "{name} agrees with RabbitMQ: take it out of accepted.txt");
        assert!(scenarios.contains(name), "accepted.txt names {name}, which is no scenario");
        assert!(reason.len() > 10, "{name} needs a reason");
        assert!(page.contains(&format!("`{name}`")), "{name} is missing in docs/compatibility.md");
    }
}
