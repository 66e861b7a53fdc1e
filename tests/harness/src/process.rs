//! One child process that cannot outlive the test: started under `setpriv --pdeathsig KILL`, killed on drop.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Error;

/// How often a condition is looked at while waiting.
const POLL: Duration = Duration::from_millis(10);
/// How many bytes of the log's end a failure message shows.
const LOG_TAIL_BYTES: usize = 4_000;

/// How to start the program, again and again over restarts.
#[derive(Debug)]
pub(crate) struct Launch {
    /// The word for it in messages.
    pub name: &'static str,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Environment variables on top of the inherited ones.
    pub environment: Vec<(String, String)>,
    /// The directory it runs in.
    pub directory: PathBuf,
    /// Where its standard output and error go (appended).
    pub log: PathBuf,
    /// Where it answers AMQP when it serves.
    pub address: SocketAddr,
    /// How long it may take to serve.
    pub start_limit: Duration,
    /// How long it may take to stop after SIGTERM.
    pub stop_limit: Duration,
}

/// A running or stopped program.
#[derive(Debug)]
pub(crate) struct Process {
    launch: Launch,
    child: Option<Child>,
}

impl Process {
    /// Starts the program and waits until its AMQP port answers.
    pub fn start(launch: Launch) -> Result<Self, Error> {
        let mut process = Process { launch, child: None };
        process.start_again()?;
        Ok(process)
    }

    /// One that is yet to be started.
    pub fn new(launch: Launch) -> Self {
        Process { launch, child: None }
    }

    /// Starts the program without waiting for anything; for helpers such as epmd.
    pub fn start_without_waiting(launch: Launch) -> Result<Self, Error> {
        let mut process = Process { launch, child: None };
        process.spawn()?;
        Ok(process)
    }

    /// Stops the program if it runs, starts it and waits until its AMQP port answers.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.terminate()?;
        self.start_again()
    }

    pub fn port(&self) -> u16 {
        self.launch.address.port()
    }

    /// The process id, or 0 when nothing was started.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// SIGKILL, then waits for the end.
    pub fn kill_9(&mut self) -> Result<(), Error> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().map_err(|error| Error::io(format!("killing {}", self.launch.name), error))?;
        child.wait().map_err(|error| Error::io(format!("waiting for {}", self.launch.name), error))?;
        Ok(())
    }

    /// SIGTERM, then waits for the end.
    pub fn terminate(&mut self) -> Result<(), Error> {
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        if exit_status(child)?.is_none() {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let pid = pid.ok_or_else(|| Error::NotRunning { program: self.launch.name.to_owned() })?;
            kill_process(pid, Signal::TERM).map_err(|error| Error::io("sending SIGTERM", error))?;
        }
        let give_up = Instant::now() + self.launch.stop_limit;
        while exit_status(child)?.is_none() {
            if Instant::now() >= give_up {
                let (program, waited) = (self.launch.name.to_owned(), self.launch.stop_limit);
                return Err(Error::DoesNotStop { program, waited, log: self.log_tail() });
            }
            thread::sleep(POLL);
        }
        self.child = None;
        Ok(())
    }

    /// User plus system time from /proc/PID/stat.
    pub fn cpu_time(&self) -> Result<Duration, Error> {
        let text = self.proc_file("stat")?;
        // The second field is the name in brackets and may hold spaces: count from its closing bracket.
        let after_name = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks: u64 = after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_nanos(ticks * 1_000_000_000 / per_second))
    }

    /// A `kB` line of /proc/PID/status, in bytes.
    pub fn status_bytes(&self, key: &str) -> Result<u64, Error> {
        let text = self.proc_file("status")?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("");
        let kibibytes = line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse::<u64>();
        kibibytes.map(|kibibytes| kibibytes * 1_024).map_err(|_| self.not_running())
    }

    /// Everything it has printed, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.launch.log).unwrap_or_default()).into_owned()
    }

    /// The end of what it printed.
    pub fn log_tail(&self) -> String {
        let octets = fs::read(&self.launch.log).unwrap_or_default();
        let start = octets.len().saturating_sub(LOG_TAIL_BYTES);
        String::from_utf8_lossy(octets.get(start..).unwrap_or_default()).into_owned()
    }

    fn start_again(&mut self) -> Result<(), Error> {
        self.spawn()?;
        self.await_service()
    }

    /// Waits until the AMQP port answers.
    pub fn await_service(&mut self) -> Result<(), Error> {
        let port = self.port();
        let give_up = Instant::now() + self.launch.start_limit;
        while !speaks_amqp(self.launch.address) {
            if let Some(status) = self.ended()? {
                self.child = None;
                let (program, log) = (self.launch.name.to_owned(), self.log_tail());
                return Err(Error::DiedAtStart { program, status: status.to_string(), port, log });
            }
            if Instant::now() >= give_up {
                let (program, log) = (self.launch.name.to_owned(), self.log_tail());
                self.kill_9()?;
                let waited = self.launch.start_limit;
                return Err(Error::NoAnswer { program, port, waited, log });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Its exit status, if it has ended by itself.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child.as_mut().map_or(Ok(None), exit_status)
    }

    /// Starts the program and waits for nothing.
    pub fn spawn(&mut self) -> Result<(), Error> {
        let launch = &self.launch;
        let log = File::options().create(true).append(true).open(&launch.log);
        let log = log.map_err(|error| Error::io(format!("opening {}", launch.log.display()), error))?;
        let errors = log.try_clone().map_err(|error| Error::io("duplicating the log file", error))?;
        // setpriv replaces itself by the program, so that the process id is the program's own.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(&launch.command).envs(launch.environment.iter().cloned());
        command.current_dir(&launch.directory).stdin(Stdio::null()).stdout(log).stderr(errors);
        self.child = Some(spawn_from_lasting_thread(command)?);
        Ok(())
    }

    fn proc_file(&self, file: &str) -> Result<String, Error> {
        let child = self.child.as_ref().ok_or_else(|| self.not_running())?;
        fs::read_to_string(format!("/proc/{}/{file}", child.id())).map_err(|_| self.not_running())
    }

    fn not_running(&self) -> Error {
        Error::NotRunning { program: self.launch.name.to_owned() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Nothing is left to do about a failure here: the kernel kills the child when this process ends.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// True when the address accepts a connection and answers an AMQP protocol header with a first octet.
pub(crate) fn speaks_amqp(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else { return false };
    let mut first = [0_u8; 1];
    stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
        && stream.write_all(b"AMQP\x00\x00\x09\x01").is_ok()
        && stream.read_exact(&mut first).is_ok()
        && first == [1]
}

fn exit_status(child: &mut Child) -> Result<Option<ExitStatus>, Error> {
    child.try_wait().map_err(|error| Error::io("asking for the exit status", error))
}

/// A command to start, and where its child goes.
type SpawnRequest = (Command, Sender<std::io::Result<Child>>);

/// Starts a program from a thread that lives as long as this process: the kernel sends the parent-death signal when the
/// *thread* that forked ends, and test threads end early.
fn spawn_from_lasting_thread(command: Command) -> Result<Child, Error> {
    static SPAWNER: OnceLock<Mutex<Sender<SpawnRequest>>> = OnceLock::new();
    let program = format!("{:?}", command.get_args().collect::<Vec<_>>());
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<SpawnRequest>();
        thread::spawn(move || {
            for (mut command, answer) in requests {
                // A caller that no longer waits for its child has dropped the other end; the child is then reaped here.
                if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
        });
        Mutex::new(sender)
    });
    let (answer, child) = mpsc::channel();
    let gone = || Error::io("starting a program", std::io::Error::other("the starting thread has ended"));
    spawner.lock().map_err(|_| gone())?.send((command, answer)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?.map_err(|error| Error::io(format!("starting setpriv {program}"), error))
}
