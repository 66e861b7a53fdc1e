//! How the broker is struck.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::Broker;
use tempfile::TempDir;

/// Size of the image that a power cut works on.
const IMAGE_BYTES: u64 = 2 << 30;

/// A way to strike a broker, and to make its data usable again.
pub trait Fault {
    /// The word for it in reports.
    fn name(&self) -> &'static str;

    /// Where the broker must keep its data.
    fn data_dir(&self) -> PathBuf;

    /// Strikes; the broker is not running afterwards.
    fn strike(&mut self, broker: &mut dyn Broker) -> Result<(), String>;

    /// Keeps the data for a post-mortem and says where it is.
    fn keep(&mut self) -> PathBuf;
}

/// kill -9.
#[derive(Debug)]
pub struct KillNine {
    directory: Option<TempDir>,
    path: PathBuf,
}

impl KillNine {
    /// With data in a temporary directory.
    pub fn new() -> io::Result<Self> {
        let directory = TempDir::with_prefix("crash-rounds-")?;
        Ok(KillNine { path: directory.path().to_owned(), directory: Some(directory) })
    }
}

impl Fault for KillNine {
    fn name(&self) -> &'static str {
        "kill -9"
    }

    fn data_dir(&self) -> PathBuf {
        self.path.join("data")
    }

    fn strike(&mut self, broker: &mut dyn Broker) -> Result<(), String> {
        broker.kill_9().map_err(|error| error.to_string())
    }

    fn keep(&mut self) -> PathBuf {
        self.directory.take().map_or_else(|| self.path.clone(), TempDir::keep)
    }
}

/// A power cut: the data directory is on an ext4 image of its own, and the file system is shut down without writing its log or its
/// cache, as if the plug had been pulled. What was not synced is gone. Needs root and loop devices.
#[derive(Debug)]
pub struct PowerCut {
    directory: Option<TempDir>,
    path: PathBuf,
}

impl PowerCut {
    /// Makes and mounts the image. The error says what this machine lacks.
    pub fn new() -> io::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(io::Error::other("a power cut needs root, to mount an image"));
        }
        let directory = TempDir::with_prefix("power-cut-")?;
        let path = directory.path().to_owned();
        File::create(path.join("image"))?.set_len(IMAGE_BYTES)?;
        command("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), path.join("image").as_ref()])?;
        fs::create_dir(path.join("disk"))?;
        let cut = PowerCut { path, directory: Some(directory) };
        cut.mount()?;
        Ok(cut)
    }

    fn disk(&self) -> PathBuf {
        self.path.join("disk")
    }

    fn mount(&self) -> io::Result<()> {
        let image = self.path.join("image");
        command("mount", &["-o".as_ref(), "loop".as_ref(), image.as_ref(), self.disk().as_ref()])
    }

    fn unmount(&self) -> io::Result<()> {
        command("umount", &[self.disk().as_ref()])
    }
}

impl Fault for PowerCut {
    fn name(&self) -> &'static str {
        "power cut"
    }

    fn data_dir(&self) -> PathBuf {
        self.disk().join("data")
    }

    fn strike(&mut self, broker: &mut dyn Broker) -> Result<(), String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cut-power.py");
        let process = broker.pid().to_string();
        let cut = command("python3", &[script.as_ref(), self.disk().as_ref(), process.as_ref()]);
        let killed = broker.kill_9();
        cut.map_err(|error| error.to_string())?;
        killed.map_err(|error| error.to_string())?;
        let bitten = fs::write(self.disk().join("probe"), b"x").is_err();
        self.unmount().and_then(|()| self.mount()).map_err(|error| error.to_string())?;
        if bitten { Ok(()) } else { Err("the disk still took writes after the power cut".into()) }
    }

    fn keep(&mut self) -> PathBuf {
        self.directory.take().map_or_else(|| self.path.clone(), TempDir::keep)
    }
}

impl Drop for PowerCut {
    fn drop(&mut self) {
        // A failure leaves the mount for the operator to see; there is nobody to report it to here.
        let _ = self.unmount();
    }
}

fn command(program: &str, arguments: &[&std::ffi::OsStr]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{program} {arguments:?}: {words}")))
}
