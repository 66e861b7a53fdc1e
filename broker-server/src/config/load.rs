//! From flags, environment and files to one [`Config`], or to every error at once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::document::{segments, shortened};
use super::environment::{self, Environment};
use super::error::{Complaint, ConfigErrors, Origin};
use super::files::{self, FileLines, RawSetting};
use super::keys::{Draft, Given, KEYS, Key};
use super::{Config, REDACTED, advanced, known};
use crate::args::Args;

/// A configuration and what is worth saying about how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Settings without effect and other oddities, to be logged once there is a log.
    pub warnings: Vec<Complaint>,
    origins: BTreeMap<Vec<String>, Origin>,
}

impl Loaded {
    /// The configuration as a file that would make it, each line with its origin; secrets are replaced.
    #[must_use]
    pub fn print(&self) -> String {
        let mut text = String::new();
        for key in KEYS {
            for (name, value) in (key.show)(&self.config) {
                let origin = self.origins.get(&segments(&name)).unwrap_or(&Origin::Default);
                let value = if key.secret { REDACTED.to_string() } else { quoted(&value) };
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{name} = {value} # {origin}");
            }
        }
        text
    }
}

/// Reads the configuration that `args` and `environment` ask for.
///
/// # Errors
/// Every error of every file, variable and flag together: unreadable files and lines, unknown keys, bad values.
pub fn load(args: &Args, environment: &Environment) -> Result<Loaded, ConfigErrors> {
    let mut gathered = Gathered::default();
    let mut environment = environment.clone();
    gathered.add_environment_file(&mut environment);
    let main = files::main_file(args.config.as_deref(), &environment);
    let (main, asked_by) = main.map_or((None, Origin::Default), |(path, origin)| (Some(path), origin));
    gathered.errors.extend(advanced::refusal(main.as_deref(), &environment));
    gathered.add_files(main.as_deref(), &asked_by, &environment);
    gathered.add_variables(&environment);
    if let Some(data_dir) = &args.data_dir {
        gathered.set("broker.data_dir", data_dir.to_string_lossy().into_owned(), Origin::Flag("--data-dir"));
    }
    gathered.finish(&environment)
}

/// The settings that count so far, by key.
#[derive(Default)]
struct Gathered {
    settings: BTreeMap<Vec<String>, Setting>,
    errors: Vec<Complaint>,
    warnings: Vec<Complaint>,
}

struct Setting {
    value: String,
    origin: Origin,
}

impl Gathered {
    fn add_environment_file(&mut self, environment: &mut Environment) {
        let Some(path) = environment.value("RABBITMQ_CONF_ENV_FILE").map(str::to_string) else { return };
        match files::read_text(Path::new(&path)) {
            Ok(text) => environment.add_file(Path::new(&path), &text, &mut self.warnings),
            Err(reason) => {
                let origin = Origin::Environment("RABBITMQ_CONF_ENV_FILE".into());
                self.errors.push(Complaint::new(&origin, reason));
            }
        }
    }

    fn add_files(&mut self, main: Option<&Path>, asked_by: &Origin, environment: &Environment) {
        let lines = FileLines::read(main, asked_by, environment);
        self.errors.extend(lines.errors);
        self.warnings.extend(lines.warnings);
        for RawSetting { key, value, origin } in lines.settings {
            self.set_if_known(&key, value, origin);
        }
        // Values of variables are taken as they are; those of files name variables.
        for setting in self.settings.values_mut() {
            match interpolated(&setting.value, environment) {
                Ok(value) => setting.value = value,
                Err(text) => self.errors.push(Complaint::new(&setting.origin, text)),
            }
        }
    }

    fn add_variables(&mut self, environment: &Environment) {
        for variable in environment::settings(environment, &mut self.errors, &mut self.warnings) {
            self.set_if_known(&variable.key, variable.value, variable.origin);
        }
    }

    fn set(&mut self, key: &str, value: String, origin: Origin) {
        self.settings.insert(segments(key), Setting { value, origin });
    }

    /// Every line with an unknown key is an error, even one that a later line overrides.
    fn set_if_known(&mut self, key: &str, value: String, origin: Origin) {
        let given = segments(key);
        if key_of(&given).is_some() {
            self.settings.insert(given, Setting { value, origin });
        } else if let Some(reason) = known::ignored(&given) {
            self.warnings.push(Complaint::new(&origin, format!("{key} is ignored: {reason}")));
        } else {
            let nearest = known::nearest(&given, KEYS.iter().map(|key| key.name));
            let text = format!("unknown key '{}'; the nearest known key is '{nearest}'", shortened(key));
            self.errors.push(Complaint::new(&origin, text));
        }
    }

    fn finish(mut self, environment: &Environment) -> Result<Loaded, ConfigErrors> {
        let node_name = environment::default_node_name();
        let mut draft = Draft::new(node_name);
        for (given, setting) in &self.settings {
            let Some(key) = key_of(given) else { continue };
            if let Err(reason) = (key.apply)(&mut draft, &Given { segments: given, value: &setting.value }) {
                let shown = if key.secret { REDACTED.to_string() } else { format!("'{}'", shortened(&setting.value)) };
                let text = format!("{} = {shown} {reason}", given.join("."));
                self.errors.push(Complaint::new(&setting.origin, text));
            } else if let Some(reason) = key.pending {
                let text = format!("{} has no effect: {reason}", given.join("."));
                self.warnings.push(Complaint::new(&setting.origin, text));
            } else if let Some(reason) = draft.warning.take() {
                let text = format!("{} = '{}' {reason}", given.join("."), shortened(&setting.value));
                self.warnings.push(Complaint::new(&setting.origin, text));
            }
        }
        self.warn_of_unused_variables(environment);
        let mut odd = Vec::new();
        let finished = draft.finish(&mut odd);
        for (beginning, text) in odd {
            self.warnings.push(self.blame(beginning, text));
        }
        let config = finished.map_err(|(beginning, text)| self.errors.push(self.blame(beginning, text))).ok();
        self.errors.sort_by_key(|complaint| place(&complaint.origin));
        match config.filter(|_| self.errors.is_empty()) {
            Some(config) => {
                let origins = self.settings.into_iter().map(|(key, setting)| (key, setting.origin)).collect();
                Ok(Loaded { config, warnings: self.warnings, origins })
            }
            None => Err(ConfigErrors(self.errors)),
        }
    }

    /// A complaint about several settings, at the last of those whose keys begin with `beginning`.
    fn blame(&self, beginning: &str, text: String) -> Complaint {
        let begins = |key: &[String]| key.join(".").starts_with(beginning);
        let last = self.settings.iter().rev().find(|(key, _)| begins(key));
        Complaint { origin: last.map_or(Origin::Default, |(_, setting)| setting.origin.clone()), text }
    }

    fn warn_of_unused_variables(&mut self, environment: &Environment) {
        for (name, key) in [("RABBITMQ_DEFAULT_PASS", "default_pass"), ("RABBITMQ_DEFAULT_USER", "default_user")] {
            let both = environment.value(name).is_some() && environment.value(&format!("{name}_FILE")).is_some();
            if both {
                let text = format!("ignored: {name} is set too and gives {key}");
                self.warnings.push(Complaint::new(&Origin::Environment(format!("{name}_FILE")), text));
            }
        }
    }
}

fn key_of(given: &[String]) -> Option<&'static Key> {
    KEYS.iter().find(|key| known::matches(key.name, given))
}

/// Files first and by line, so that a reader of the errors goes through the file once.
fn place(origin: &Origin) -> (u8, String, usize) {
    match origin {
        Origin::File { path, line } => (0, path.display().to_string(), *line),
        Origin::Environment(name) => (1, name.clone(), 0),
        Origin::Flag(flag) => (2, (*flag).to_string(), 0),
        Origin::Default => (3, String::new(), 0),
    }
}

/// `value` with every `$(NAME)` replaced by the environment variable; a `$(` without `)` stays.
fn interpolated(value: &str, environment: &Environment) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("$(") {
        let Some((name, behind)) = after.split_once(')') else { break };
        let name = name.trim();
        let found = environment.value(name);
        let found = found.ok_or_else(|| format!("$({}): no such environment variable is set", shortened(name)))?;
        result.push_str(before);
        result.push_str(found);
        rest = behind;
    }
    result.push_str(rest);
    Ok(result)
}

/// A value as it must be written in a file.
fn quoted(value: &str) -> String {
    let plain = !value.is_empty() && value.trim() == value && !value.contains('#') && !value.starts_with('\'');
    if plain { value.to_string() } else { format!("'{value}'") }
}

#[cfg(test)]
mod tests;
