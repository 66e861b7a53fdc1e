//! The data directory: made, locked by one process, and known by its identity file.
//!
//! ```text
//! DIR/lock       held with flock(2) while brokerd runs; holds its process id and a line break
//! DIR/identity   broker data directory\n
//!                format 1\n
//!                node 00112233445566778899aabbccddeeff\n
//!                crc32c 01234567\n            of all bytes before this line
//! ```
//!
//! The first two lines of the identity keep this form in every format, so that an older brokerd can tell a newer
//! directory from a damaged one. A directory that holds anything but has no identity is not ours and is not touched.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{fmt, str};

use rustix::fs::{FlockOperation, flock};
use rustix::rand::{GetRandomFlags, getrandom};

/// The format of data directories this version writes and reads.
pub const FORMAT: u32 = 1;

const LOCK_FILE: &str = "lock";
const IDENTITY_FILE: &str = "identity";
const NEW_IDENTITY_FILE: &str = "identity.new";
const MAGIC_LINE: &str = "broker data directory\n";
/// Largest identity file of any format, in bytes.
const MAX_IDENTITY_BYTES: u64 = 4_096;
/// What a directory may hold and still count as new: the log may be opened first, and `lost+found` is in the root of a
/// fresh file system.
const OWN_BEFORE_IDENTITY: &[&str] = &[LOCK_FILE, NEW_IDENTITY_FILE, "log", "lost+found"];
/// Names that a data directory of RabbitMQ holds.
const RABBITMQ_NAMES: &[&str] = &[
    "schema.DAT",
    "cluster_nodes.config",
    "nodes_running_at_shutdown",
    "node-type.txt",
    "LATEST.LOG",
    "msg_stores",
    "mnesia",
];
/// How many names of a foreign directory a message lists.
const NAMES_SHOWN: usize = 3;

/// An open data directory. It stays locked until this value is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    identity: Identity,
    is_new: bool,
    /// Held for its lock.
    _lock: File,
}

impl DataDir {
    /// Opens the directory at `path`; makes it, with its parents, and gives it an identity if there is none.
    ///
    /// # Errors
    /// See [`DataDirError`]. Nothing in a directory that is not ours is changed.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        create(path)?;
        refuse_foreign(path)?;
        let lock = lock(path)?;
        // Another process may have filled the directory before we had the lock.
        refuse_foreign(path)?;
        let known = read_identity(path)?;
        let is_new = known.is_none();
        let identity = known.map_or_else(|| write_identity(path), Ok)?;
        Ok(Self { path: path.to_path_buf(), identity, is_new, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether this opening gave it its identity: the first boot of the node.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

/// What the identity file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node the directory belongs to.
    pub node: NodeId,
    /// The format of everything in it.
    pub format: u32,
}

/// A random number that names a node for ever, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub u128);

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// Why a data directory cannot be used: what, which, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It, or a parent, cannot be made.
    #[error(
        "cannot create the data directory {path}: {source}. Create it for this user or choose another with --data-dir"
    )]
    CannotCreate {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It may not be written to.
    #[error("the data directory {path} is not writable: {source}. Give it to the user that runs brokerd")]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process uses it.
    #[error("the data directory {path} is locked by {}. Stop that process or choose another directory with --data-dir", holder(.pid))]
    Locked {
        /// The directory.
        path: PathBuf,
        /// The process, if it said so.
        pid: Option<u32>,
    },
    /// It holds files but no identity.
    #[error("{path} is not a data directory of this broker: it holds {found} but no file 'identity'.{} Choose an empty or new directory with --data-dir", hint(.rabbitmq))]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Some of what it holds.
        found: String,
        /// Whether it looks like a data directory of RabbitMQ.
        rabbitmq: bool,
    },
    /// A newer version wrote it.
    #[error(
        "the data directory {path} has format {found}, this version reads up to format {FORMAT}. Start the version that wrote it, or a later one"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// Its identity cannot be read.
    #[error("{file} is damaged at byte {offset}: {reason}. Restore this file from a backup; nothing was changed")]
    Damaged {
        /// The identity file.
        file: PathBuf,
        /// The first byte that is wrong.
        offset: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The operating system refused something else.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

fn hint(rabbitmq: &bool) -> &'static str {
    if *rabbitmq {
        " It looks like a data directory of RabbitMQ, which cannot be read: export definitions there with `rabbitmqctl \
         export_definitions`, and move messages with a shovel."
    } else {
        ""
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DataDirError + 'a {
    move |source| DataDirError::Io { action, path: path.to_path_buf(), source }
}

/// Makes the directory and what is missing above it, each made durable in its parent.
fn create(path: &Path) -> Result<(), DataDirError> {
    if path.is_dir() {
        return Ok(());
    }
    let cannot = |source| DataDirError::CannotCreate { path: path.to_path_buf(), source };
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !parent.is_dir() && parent != path {
        create(parent).map_err(|error| match error {
            DataDirError::CannotCreate { source, .. } => cannot(source),
            other => other,
        })?;
    }
    match DirBuilder::new().mode(0o750).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => Err(cannot(error)),
        _ => sync_directory(parent),
    }
}

fn sync_directory(path: &Path) -> Result<(), DataDirError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("make durable", path))
}

fn refuse_foreign(path: &Path) -> Result<(), DataDirError> {
    if path.join(IDENTITY_FILE).exists() {
        return Ok(());
    }
    let mut foreign = Vec::new();
    for entry in fs::read_dir(path).map_err(failed("list", path))? {
        let name = entry.map_err(failed("list", path))?.file_name().to_string_lossy().into_owned();
        if !OWN_BEFORE_IDENTITY.contains(&name.as_str()) {
            foreign.push(name);
        }
    }
    if foreign.is_empty() {
        return Ok(());
    }
    foreign.sort();
    let rabbitmq = foreign.iter().any(|name| RABBITMQ_NAMES.contains(&name.as_str()) || name.starts_with("rabbit@"));
    let more = foreign.len().saturating_sub(NAMES_SHOWN);
    let mut found = foreign.iter().take(NAMES_SHOWN).map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    if more > 0 {
        found.push_str(&format!(" and {more} more"));
    }
    Err(DataDirError::Foreign { path: path.to_path_buf(), found, rabbitmq })
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let file_path = path.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    let opened = options.read(true).write(true).create(true).truncate(false).mode(0o640).open(&file_path);
    let mut file = opened.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            DataDirError::NotWritable { path: path.to_path_buf(), source }
        }
        _ => failed("open", &file_path)(source),
    })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(DataDirError::Locked { path: path.to_path_buf(), pid: pid_in(&mut file) });
        }
        Err(error) => return Err(failed("lock", &file_path)(error.into())),
    }
    let text = format!("{}\n", std::process::id());
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
    written.map_err(failed("write", &file_path))?;
    Ok(file)
}

/// The process id a lock file holds; its holder may be between locking and writing.
fn pid_in(file: &mut File) -> Option<u32> {
    const LONGEST: u64 = 20;
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn read_identity(path: &Path) -> Result<Option<Identity>, DataDirError> {
    let file_path = path.join(IDENTITY_FILE);
    let file = match File::open(&file_path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", &file_path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_IDENTITY_BYTES).read_to_end(&mut bytes).map_err(failed("read", &file_path))?;
    let identity = parse_identity(&bytes).map_err(|problem| match problem {
        Problem::Newer(found) => DataDirError::Newer { path: path.to_path_buf(), found },
        Problem::Damaged(offset, reason) => DataDirError::Damaged { file: file_path, offset, reason },
    })?;
    Ok(Some(identity))
}

fn write_identity(path: &Path) -> Result<Identity, DataDirError> {
    let identity =
        Identity { node: random_node_id().map_err(failed("draw a random number for", path))?, format: FORMAT };
    let new_path = path.join(NEW_IDENTITY_FILE);
    let mut options = OpenOptions::new();
    let opened = options.write(true).create(true).truncate(true).mode(0o640).open(&new_path);
    let written = opened.and_then(|mut file| {
        file.write_all(identity_text(&identity).as_bytes())?;
        file.sync_all()
    });
    written.map_err(failed("write", &new_path))?;
    let file_path = path.join(IDENTITY_FILE);
    fs::rename(&new_path, &file_path).map_err(failed("rename to", &file_path))?;
    sync_directory(path)?;
    Ok(identity)
}

fn random_node_id() -> io::Result<NodeId> {
    let mut bytes = [0_u8; 16];
    // The kernel gives up to 256 bytes in one piece.
    if getrandom(&mut bytes, GetRandomFlags::empty())? != bytes.len() {
        return Err(io::Error::other("the kernel gave fewer bytes than asked for"));
    }
    Ok(NodeId(u128::from_be_bytes(bytes)))
}

fn identity_text(identity: &Identity) -> String {
    let body = format!("{MAGIC_LINE}format {}\nnode {}\n", identity.format, identity.node);
    format!("{body}crc32c {:08x}\n", checksum(body.as_bytes()))
}

fn checksum(bytes: &[u8]) -> u32 {
    // The algorithm's result is 32 bits wide.
    u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes)).unwrap_or(u32::MAX)
}

#[derive(Debug, PartialEq, Eq)]
enum Problem {
    /// A format we do not know.
    Newer(u32),
    /// The first byte that is wrong, and how.
    Damaged(usize, &'static str),
}

fn parse_identity(bytes: &[u8]) -> Result<Identity, Problem> {
    let text = str::from_utf8(bytes).map_err(|error| Problem::Damaged(error.valid_up_to(), "not text"))?;
    let mut rest = text;
    let mut line = |beginning: &'static str| {
        let offset = text.len() - rest.len();
        let (first, behind) = rest.split_once('\n').ok_or(Problem::Damaged(offset, "the file ends too early"))?;
        let value = first.strip_prefix(beginning).ok_or(Problem::Damaged(offset, "an unexpected line"))?;
        rest = behind;
        Ok((offset, value))
    };
    let (offset, nothing) = line(MAGIC_LINE.trim_end())?;
    if !nothing.is_empty() {
        return Err(Problem::Damaged(offset, "an unexpected line"));
    }
    let (offset, format) = line("format ")?;
    let format: u32 = format.parse().map_err(|_| Problem::Damaged(offset, "no format number"))?;
    if format > FORMAT {
        return Err(Problem::Newer(format));
    }
    let (offset, node) = line("node ")?;
    let node = u128::from_str_radix(node, 16).ok().filter(|_| node.len() == 32);
    let node = node.ok_or(Problem::Damaged(offset, "no node identity"))?;
    let (offset, expected) = line("crc32c ")?;
    let actual = format!("{:08x}", checksum(text.get(..offset).unwrap_or("").as_bytes()));
    if actual != expected {
        return Err(Problem::Damaged(offset, "the checksum does not fit the lines before"));
    }
    if !rest.is_empty() {
        return Err(Problem::Damaged(text.len() - rest.len(), "more bytes than expected"));
    }
    if format != FORMAT {
        return Err(Problem::Damaged(MAGIC_LINE.len(), "a format that never was"));
    }
    Ok(Identity { node: NodeId(node), format })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    fn message(path: &Path) -> String {
        DataDir::open(path).unwrap_err().to_string()
    }

    #[test]
    fn is_made_with_its_parents_and_keeps_its_identity() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("a/b/data");
        let first = DataDir::open(&path).unwrap();
        assert!(first.is_new());
        let node = first.identity().node;
        drop(first);
        let again = DataDir::open(&path).unwrap();
        assert!(!again.is_new());
        assert_eq!(again.identity(), &Identity { node, format: FORMAT });
        assert_ne!(node, DataDir::open(&directory.path().join("other")).unwrap().identity().node);
    }

    #[test]
    fn a_second_opening_is_refused_with_the_process_id() {
        let directory = TempDir::new().unwrap();
        let _held = DataDir::open(directory.path()).unwrap();
        let text = message(directory.path());
        assert!(text.contains(&format!("is locked by process {}.", std::process::id())), "{text}");
    }

    #[test]
    fn a_foreign_directory_is_refused_and_left_alone() {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("letter.txt"), "dear").unwrap();
        let text = message(directory.path());
        assert!(text.contains("holds 'letter.txt' but no file 'identity'"), "{text}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_of_rabbitmq_is_recognised() {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("rabbit@host")).unwrap();
        assert!(message(directory.path()).contains("It looks like a data directory of RabbitMQ"));
    }

    #[test]
    fn leftovers_of_a_crash_at_first_boot_are_ours() {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("lost+found")).unwrap();
        fs::write(directory.path().join(LOCK_FILE), "123\n").unwrap();
        fs::write(directory.path().join(NEW_IDENTITY_FILE), "broker da").unwrap();
        assert!(DataDir::open(directory.path()).unwrap().is_new());
    }

    #[test]
    fn a_newer_format_is_named() {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join(IDENTITY_FILE), format!("{MAGIC_LINE}format 7\nsomething else\n")).unwrap();
        let text = message(directory.path());
        assert!(text.contains("has format 7, this version reads up to format 1"), "{text}");
    }

    #[test]
    fn damage_is_told_with_file_and_offset() {
        let directory = TempDir::new().unwrap();
        drop(DataDir::open(directory.path()).unwrap());
        let file = directory.path().join(IDENTITY_FILE);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("node ", "node f")).unwrap();
        let told = message(directory.path());
        assert!(told.contains("identity is damaged at byte 31: no node identity"), "{told}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text.replace("node ", "node f"));
    }

    #[test]
    fn a_file_in_its_place_or_above_cannot_become_a_directory() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [file.clone(), file.join("data")] {
            let text = message(&path);
            assert!(text.starts_with(&format!("cannot create the data directory {}:", path.display())), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse_identity(&bytes).is_err());
        }

        /// Changing, cutting or adding any byte is noticed, at an offset within the file.
        #[test]
        fn any_change_of_a_byte_is_noticed(node: u128, place in 0..200_usize, byte: u8) {
            let text = identity_text(&Identity { node: NodeId(node), format: FORMAT });
            prop_assert!(parse_identity(text.as_bytes()).is_ok());
            let mut bytes = text.clone().into_bytes();
            let place = place % bytes.len();
            prop_assume!(bytes[place] != byte);
            bytes[place] = byte;
            match parse_identity(&bytes) {
                Ok(_) => prop_assert!(false, "not noticed"),
                Err(Problem::Damaged(offset, _)) => prop_assert!(offset <= bytes.len()),
                Err(Problem::Newer(_)) => {}
            }
            prop_assert!(parse_identity(&text.as_bytes()[..place]).is_err());
        }
    }
}
