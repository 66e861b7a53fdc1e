//! Which configuration files are read, and their lines in the order in which later ones win.
//!
//! First the file itself, then `conf.d/*.conf` beside it (or what `RABBITMQ_CONFIG_FILES` names) in the order of the
//! names. An `include` line puts the lines of other files in its place; a pattern may have one `*` in its last part.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::{self, Statement, shortened};
use super::environment::Environment;
use super::error::{Complaint, Origin};

/// Largest configuration file, in bytes.
pub(super) const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most files a directory or pattern may name.
const MAX_FILES: usize = 1_000;
/// Most settings of all files together.
const MAX_SETTINGS: usize = 100_000;
/// How deep files may include files.
const MAX_INCLUDE_DEPTH: usize = 8;

/// A `key = value` line.
#[derive(Clone, Debug)]
pub(super) struct RawSetting {
    /// The key as written.
    pub key: String,
    /// The value, not interpolated.
    pub value: String,
    /// File and line.
    pub origin: Origin,
}

/// What was read and what went wrong.
#[derive(Default)]
pub(super) struct FileLines {
    /// All settings; the later of two with the same key counts.
    pub settings: Vec<RawSetting>,
    /// Lines that cannot be read, files that cannot be opened.
    pub errors: Vec<Complaint>,
    /// Odd lines.
    pub warnings: Vec<Complaint>,
}

impl FileLines {
    /// Reads the file `main`, if there is one, and the directory that goes with it.
    pub fn read(main: Option<&Path>, asked_by: &Origin, environment: &Environment) -> Self {
        let mut lines = Self::default();
        if let Some(main) = main {
            lines.add_file(main, asked_by, 0);
        }
        if let Some(pattern) = environment.value("RABBITMQ_CONFIG_FILES") {
            let origin = Origin::Environment("RABBITMQ_CONFIG_FILES".into());
            lines.add_pattern(&directory_as_pattern(Path::new(pattern)), &origin, 0);
        } else if let Some(directory) = main.and_then(Path::parent).map(|parent| parent.join("conf.d"))
            && directory.is_dir()
        {
            lines.add_pattern(&directory.join("*.conf"), asked_by, 0);
        }
        lines
    }

    fn add_pattern(&mut self, pattern: &Path, asked_by: &Origin, depth: usize) {
        match expand(pattern) {
            Ok(paths) => paths.iter().for_each(|path| self.add_file(path, asked_by, depth)),
            Err(error) => {
                self.errors.push(Complaint::new(asked_by, format!("cannot read {}: {error}", pattern.display())))
            }
        }
    }

    fn add_file(&mut self, path: &Path, asked_by: &Origin, depth: usize) {
        let text = match read_text(path) {
            Ok(text) => text,
            Err(reason) => return self.errors.push(Complaint::new(asked_by, reason)),
        };
        let path = Arc::new(path.to_path_buf());
        for line in document::parse(&text) {
            let origin = Origin::File { path: path.clone(), line: line.number };
            if self.settings.len() >= MAX_SETTINGS {
                return self.errors.push(Complaint::new(&origin, format!("more than {MAX_SETTINGS} settings")));
            }
            self.add_statement(line.statement, origin, &path, depth);
        }
    }

    fn add_statement(&mut self, statement: Statement, origin: Origin, path: &Path, depth: usize) {
        match statement {
            Statement::Setting { key, value, warning } => {
                self.warnings.extend(warning.map(|text| Complaint::new(&origin, format!("{key}: {text}"))));
                self.settings.push(RawSetting { key, value, origin });
            }
            Statement::Malformed(reason) => self.errors.push(Complaint::new(&origin, reason)),
            Statement::Include(pattern) if depth >= MAX_INCLUDE_DEPTH => {
                let text =
                    format!("include {}: files include files more than {MAX_INCLUDE_DEPTH} deep", shortened(&pattern));
                self.errors.push(Complaint::new(&origin, text));
            }
            Statement::Include(pattern) => {
                let beside = path.parent().map_or_else(|| PathBuf::from(&pattern), |parent| parent.join(&pattern));
                self.add_pattern(&beside, &origin, depth + 1);
            }
        }
    }
}

/// The path of the configuration file, which `RABBITMQ_CONFIG_FILE` may give without its `.conf`.
pub(super) fn main_file(flag: Option<&Path>, environment: &Environment) -> Option<(PathBuf, Origin)> {
    if let Some(path) = flag {
        return Some((path.to_path_buf(), Origin::Flag("--config")));
    }
    let path = PathBuf::from(environment.value("RABBITMQ_CONFIG_FILE")?);
    let mut with_extension = path.clone().into_os_string();
    with_extension.push(".conf");
    let path = if !path.is_file() && Path::new(&with_extension).is_file() { with_extension.into() } else { path };
    Some((path, Origin::Environment("RABBITMQ_CONFIG_FILE".into())))
}

/// The text of the file, or why it cannot be had.
pub(super) fn read_text(path: &Path) -> Result<String, String> {
    let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(format!("cannot read {}: it is not a file", path.display()));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(format!("{} is larger than {MAX_FILE_BYTES} bytes", path.display()));
    }
    let bytes = fs::read(path).map_err(failed)?;
    String::from_utf8(bytes).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        let before = error.as_bytes().iter().take(position);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        format!("{}:{line}: byte {position} of the file is not UTF-8 text", path.display())
    })
}

fn directory_as_pattern(path: &Path) -> PathBuf {
    if path.is_dir() { path.join("*.conf") } else { path.to_path_buf() }
}

/// The files that fit, sorted. Without a `*` it is the path itself, whether or not it exists.
fn expand(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let name = pattern.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some((before, after)) = name.split_once('*') else {
        return Ok(vec![pattern.to_path_buf()]);
    };
    let directory = pattern.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let long_enough = name.len() >= before.len() + after.len();
        if long_enough
            && name.starts_with(before)
            && name.ends_with(after)
            && !name.starts_with('.')
            && entry.path().is_file()
        {
            paths.push(entry.path());
        }
        if paths.len() > MAX_FILES {
            return Err(io::Error::other(format!("more than {MAX_FILES} files fit")));
        }
    }
    paths.sort();
    Ok(paths)
}
