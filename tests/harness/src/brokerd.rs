//! Our daemon as a test subject.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::process::{Launch, Process};
use crate::{Broker, Control, Error, Options, free_port};

/// brokerd must serve within this time, whatever backlog it starts with.
pub(crate) const START_LIMIT: Duration = Duration::from_secs(60);
/// brokerd must be gone this long after SIGTERM.
pub(crate) const STOP_LIMIT: Duration = Duration::from_secs(30);

/// A brokerd process with its own port, configuration file and data directory.
#[derive(Debug)]
pub struct Brokerd {
    process: Process,
    data_dir: PathBuf,
    binary: PathBuf,
    // Dropped last: the directory goes after the process.
    _directory: TempDir,
}

impl Brokerd {
    /// Starts `brokerd --config FILE --data-dir DIR` and waits until its AMQP port answers. The program is the one that
    /// `options` or the environment variable BROKERD_BIN names, else the newer one of `release/brokerd` and
    /// `debug/brokerd` in the target directory of the running test; of a program built for release, the former.
    pub fn start(options: Options) -> Result<Self, Error> {
        let binary = options.binary.clone().map_or_else(find_binary, Ok)?;
        let directory = TempDir::with_prefix("brokerd-").map_err(|error| Error::io("making a directory", error))?;
        let data_dir = options.data_dir.clone().unwrap_or_else(|| directory.path().join("data"));
        fs::create_dir_all(&data_dir).map_err(|error| Error::io(format!("making {}", data_dir.display()), error))?;
        let port = options.amqp_port.map_or_else(free_port, Ok)?;
        let config = directory.path().join("brokerd.conf");
        fs::write(&config, format!("listeners.tcp.default = {port}\n{}", options.conf))
            .map_err(|error| Error::io(format!("writing {}", config.display()), error))?;
        let mut command = vec![text(&binary), "--config".into(), text(&config), "--data-dir".into(), text(&data_dir)];
        command.extend(options.arguments);
        let process = Process::start(Launch {
            name: "brokerd",
            command,
            environment: options.environment,
            directory: directory.path().to_owned(),
            log: directory.path().join("brokerd.log"),
            address: (Ipv4Addr::LOCALHOST, port).into(),
            start_limit: START_LIMIT,
            stop_limit: STOP_LIMIT,
        })?;
        Ok(Brokerd { process, data_dir, binary, _directory: directory })
    }

    /// Where the broker keeps its data.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }
}

impl Broker for Brokerd {
    fn name(&self) -> &'static str {
        "brokerd"
    }

    fn amqp_port(&self) -> u16 {
        self.process.port()
    }

    fn pid(&self) -> u32 {
        self.process.pid()
    }

    fn kill_9(&mut self) -> Result<(), Error> {
        self.process.kill_9()
    }

    fn terminate(&mut self) -> Result<(), Error> {
        self.process.terminate()
    }

    fn restart(&mut self) -> Result<(), Error> {
        self.process.restart()
    }

    fn cpu_time(&self) -> Result<Duration, Error> {
        self.process.cpu_time()
    }

    fn rss_peak(&self) -> Result<u64, Error> {
        self.process.status_bytes("VmHWM")
    }

    fn rss_now(&self) -> Result<u64, Error> {
        self.process.status_bytes("VmRSS")
    }

    fn control(&self) -> Control {
        control(&self.binary, &self.data_dir)
    }

    fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}

/// `brokerctl` speaking as `rabbitmqctl`.
pub(crate) fn control(binary: &Path, data_dir: &Path) -> Control {
    brokerctl(binary, &["compat", "rabbitmqctl"], data_dir)
}

/// `brokerctl`, built beside brokerd, with these words first; it finds the running broker's socket in the data directory.
pub(crate) fn brokerctl(binary: &Path, words: &[&str], data_dir: &Path) -> Control {
    let arguments = words.iter().copied().chain(["--data-dir"]).map(OsString::from);
    let arguments = arguments.chain([data_dir.as_os_str().to_owned()]).collect();
    Control::new(binary.with_file_name("brokerctl"), arguments, Vec::new())
}

/// BROKERD_BIN, else the newest brokerd of the target directory that the running program was built into. A program that was built for speed takes
/// none but one that was, too: it measures.
pub(crate) fn find_binary() -> Result<PathBuf, Error> {
    if let Some(named) = env::var_os("BROKERD_BIN").map(PathBuf::from) {
        let looked_at = format!("BROKERD_BIN={}", named.display());
        return if named.is_file() { Ok(named) } else { Err(Error::BrokerdMissing { looked_at }) };
    }
    let candidates = candidates();
    let newest = candidates.iter().filter_map(|path| Some((modified(path)?, path))).max();
    newest.map(|(_, path)| path.clone()).ok_or_else(|| Error::BrokerdMissing {
        looked_at: candidates.iter().map(|path| text(path)).collect::<Vec<_>>().join(", "),
    })
}

fn candidates() -> Vec<PathBuf> {
    // A test runs as TARGET/PROFILE/deps/NAME, a program as TARGET/PROFILE/NAME.
    let program = env::current_exe().unwrap_or_default();
    let built = program.ancestors().filter(|directory| directory.join("CACHEDIR.TAG").is_file());
    let profiles: &[&str] = if cfg!(debug_assertions) { &["release", "debug"] } else { &["release"] };
    built.flat_map(|target| profiles.iter().map(move |profile| target.join(profile).join("brokerd"))).collect()
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok().filter(fs::Metadata::is_file)?.modified().ok()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
