//! A disk that a test can fill: a small tmpfs, mounted where nobody else sees it.
//!
//! The test runs itself again in a mount namespace of its own, which the kernel takes away with the last process in it, whatever becomes of the test.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::geteuid;

/// Set in the process that has the namespace.
const INSIDE: &str = "E2E_OWN_MOUNTS";
const BALLAST: &str = "ballast";

/// Runs the named test again where it may mount. `true` in the process in which the test is to go on; in the other one it is over when this returns.
///
/// # Errors
/// There is no namespace to be had, or the test has failed in it.
pub fn has_own_mounts(test: &str) -> io::Result<bool> {
    if env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let program = env::current_exe()?;
    let status = command.arg("--").arg(program).args(["--exact", test, "--nocapture"]).env(INSIDE, "1").status()?;
    if status.success() {
        Ok(false)
    } else {
        Err(io::Error::other(format!("{test} in its own mount namespace: {status}")))
    }
}

/// See the module's page.
#[derive(Debug)]
pub struct SmallDisk {
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts a disk of so many octets at a directory, which must exist.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn mount(path: &Path, bytes: u64) -> io::Result<SmallDisk> {
        let options = format!("size={bytes},mode=700");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("mount: {status}")));
        }
        Ok(SmallDisk { path: path.into() })
    }

    /// Leaves no octet free.
    ///
    /// # Errors
    /// Other than that the disk is full.
    pub fn fill(&self) -> io::Result<()> {
        let mut ballast = fs::OpenOptions::new().create(true).append(true).open(self.path.join(BALLAST))?;
        for piece in [1 << 20, 1 << 12] {
            let zeros = vec![0; piece];
            loop {
                match ballast.write(&zeros) {
                    Ok(written) if written > 0 => {}
                    Ok(_) => break,
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Takes away what [`SmallDisk::fill`] put there.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn make_room(&self) -> io::Result<()> {
        fs::remove_file(self.path.join(BALLAST))
    }
}
