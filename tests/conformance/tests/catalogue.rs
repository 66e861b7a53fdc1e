//! What must hold of the scenarios, recordings and accepted differences whatever the broker does.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use conformance::recorded::Whose;
use conformance::{accepted, awaited, page, recorded, script};

#[test]
fn at_least_500_scenarios_and_no_name_twice() {
    let scenarios = script::all().unwrap();
    let names: BTreeSet<_> = scenarios.iter().map(|scenario| &scenario.name).collect();
    assert_eq!(names.len(), scenarios.len());
    assert!(names.len() >= 500, "only {} scenarios", names.len());
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

#[test]
fn awaited_lines_name_scenarios_that_are_not_accepted() {
    let scenarios = script::all().unwrap();
    let lines = awaited::all();
    assert_eq!(lines.len(), lines.iter().collect::<BTreeSet<_>>().len(), "a line stands twice in awaited.txt");
    for line in lines {
        let named = scenarios.iter().any(|scenario| awaited::covers(line, &scenario.name));
        assert!(named, "awaited.txt names {line}, which is no scenario");
        let accepted = accepted::all().unwrap().iter().any(|(name, _)| awaited::covers(line, name));
        assert!(!accepted, "{line} is accepted and awaited");
    }
}

#[test]
fn compatibility_page_names_scenarios_and_says_how_they_stand() {
    let page = page::load().unwrap();
    let scenarios = script::all().unwrap();
    let rows = page::rows(&page);
    assert!(rows.len() > 100, "only {} rows", rows.len());
    let named: Vec<&str> = rows.iter().flat_map(|row| row.scenarios.iter().copied()).collect();
    for name in &named {
        let known = scenarios.iter().any(|scenario| awaited::covers(name, &scenario.name));
        assert!(known, "docs/compatibility.md names {name}, which is no scenario");
    }
    for line in awaited::all() {
        let shown = named.iter().any(|name| awaited::covers(name, line) || awaited::covers(line, name));
        assert!(shown, "{line} is awaited, and no row of docs/compatibility.md names it");
    }
    let accepted: Vec<&str> = accepted::all().unwrap().into_iter().map(|(name, _)| name).collect();
    let expected = page::with_status(&page, &awaited::all(), &accepted);
    assert!(page == expected, "a status in docs/compatibility.md is stale: cargo run -p conformance -- awaited");
}
