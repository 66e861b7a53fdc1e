//! Where things lie: what `install` fetched, and what the runs leave behind.

use std::env;
use std::path::{Path, PathBuf};

use crate::subject::Subject;
use crate::suites::Suite;

/// The directory of this crate, with the files that people write.
pub fn sources() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// What `tests/clients/install` fetched: `clients` in the target directory that this program was built into, where it lies as
/// `TARGET/PROFILE/client-suites`.
pub fn installed() -> PathBuf {
    let program = env::current_exe().unwrap_or_default();
    program.ancestors().nth(2).unwrap_or(Path::new("target")).join("clients")
}

/// Where a run of a suite leaves its outcomes and logs.
pub fn run_directory(suite: &Suite, subject: Subject) -> PathBuf {
    installed().join("runs").join(suite.name).join(subject.name())
}

/// The outcomes of the last run of a suite against a broker, one a line.
pub fn outcomes(suite: &Suite, subject: Subject) -> PathBuf {
    run_directory(suite, subject).join("outcomes.txt")
}
