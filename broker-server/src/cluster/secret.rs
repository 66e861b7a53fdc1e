//! The cluster's secret, read from its file.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use broker_meta::peer::Secret;
use rustix::fs::{Mode, OFlags};
use rustix::process::geteuid;
use zeroize::Zeroizing;

use crate::config::cluster::HOW_TO_MAKE_A_SECRET;
use crate::exit::{Code, Failure};

/// A file may be this large.
pub const FILE_MAX_BYTES: usize = 64 * 1024;
/// What group and others must not be able to do: read and write.
const OPEN_TO_OTHERS: u32 = 0o066;
const ROOT: u32 = 0;

/// Reads the secret that `path`, the value of `cluster.secret_file`, holds.
///
/// # Errors
/// The file cannot be read, others could read or change it, or what it holds is no secret.
pub fn read(path: &Path) -> Result<Secret, Failure> {
    let refused =
        |problem: String| Failure::new(Code::Config, format!("cluster.secret_file = {}: {problem}", path.display()));
    let file = open(path).map_err(|error| refused(unreadable(&error)))?;
    // Asked of what was opened: the path may lead elsewhere by now.
    let about = file.metadata().map_err(|error| Failure::io("look at", path, &error))?;
    if let Some(problem) = problem(path, &Facts::of(&about), geteuid().as_raw()) {
        return Err(refused(problem));
    }
    // Has room for more than is read, so that it never moves: what it left behind would not be wiped.
    let mut content = Zeroizing::new(Vec::with_capacity(2 * FILE_MAX_BYTES));
    let most = FILE_MAX_BYTES as u64 + 1;
    file.take(most).read_to_end(&mut content).map_err(|error| Failure::io("read", path, &error))?;
    if content.len() > FILE_MAX_BYTES {
        return Err(refused(format!("it is larger than {FILE_MAX_BYTES} octets. Name {HOW_TO_MAKE_A_SECRET}")));
    }
    Secret::from_content(&content).map_err(|short| refused(format!("{short}. Name {HOW_TO_MAKE_A_SECRET}")))
}

/// What a file is, apart from what it holds.
struct Facts {
    regular: bool,
    mode: u32,
    owner: u32,
}

impl Facts {
    fn of(about: &Metadata) -> Self {
        Self { regular: about.is_file(), mode: about.mode(), owner: about.uid() }
    }
}

/// What is wrong with a file for the user `me`, and what to do.
fn problem(path: &Path, facts: &Facts, me: u32) -> Option<String> {
    let shown = path.display();
    if !facts.regular {
        Some(format!("it is not a regular file. Name {HOW_TO_MAKE_A_SECRET}"))
    } else if facts.owner != me && facts.owner != ROOT {
        let owner = facts.owner;
        Some(format!("it belongs to user {owner}, who can change it. Give it to brokerd's: `chown {me} {shown}`"))
    } else if facts.mode & OPEN_TO_OTHERS != 0 {
        let mode = facts.mode & 0o777;
        Some(format!("its mode is {mode:03o}: others can read or change it. Close it to them: `chmod 600 {shown}`"))
    } else {
        None
    }
}

/// Opens it without waiting for who writes to a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("there is no such file. Make {HOW_TO_MAKE_A_SECRET}"),
        io::ErrorKind::PermissionDenied => {
            format!("brokerd may not read it. It must belong to brokerd's user: `chown {} FILE`", geteuid().as_raw())
        }
        _ => format!("cannot open it: {error}. Name {HOW_TO_MAKE_A_SECRET}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::process::Command;
    use std::time::Instant;

    use broker_meta::peer::{Handshake, Identity, Output};
    use rustix::fs::{CWD, FileType, mknodat};
    use tempfile::TempDir;

    use super::*;

    fn file(directory: &TempDir, content: &[u8], mode: u32) -> PathBuf {
        let path = directory.path().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// The message, without what comes before the problem.
    fn refusal(path: &Path) -> String {
        let failure = read(path).unwrap_err();
        assert_eq!(failure.code, Code::Config, "{}", failure.message);
        let beginning = format!("cluster.secret_file = {}: ", path.display());
        failure.message.strip_prefix(&beginning).unwrap().to_string()
    }

    /// Whether an end with this secret goes on talking to one with that content.
    fn is_secret_of(secret: Secret, content: &[u8]) -> bool {
        let identity =
            || Identity { cluster: None, node: 0, incarnation: 1, name: "rabbit@a".into(), software: "brokerd".into() };
        let mut outputs = Vec::new();
        let mut connector = Handshake::connect(Instant::now(), secret, identity(), [1; 32], &mut outputs);
        let theirs = Secret::from_content(content).unwrap();
        let mut acceptor = Handshake::accept(Instant::now(), theirs, identity(), [2; 32]);
        for end in [&mut acceptor, &mut connector] {
            let [Output::Send(said)] = &*outputs else { return false };
            let said = said.clone();
            outputs.clear();
            end.receive(&said, &mut outputs);
        }
        matches!(&*outputs, [Output::Send(_)])
    }

    #[test]
    fn a_file_that_is_only_ours_is_read() {
        let directory = TempDir::new().unwrap();
        for mode in [0o600, 0o400, 0o700] {
            let path = file(&directory, &[7; 32], mode);
            assert!(is_secret_of(read(&path).unwrap(), &[7; 32]), "{mode:o}");
            fs::remove_file(path).unwrap();
        }
        let whole = [b'x'; FILE_MAX_BYTES];
        let path = file(&directory, &whole, 0o600);
        assert!(is_secret_of(read(&path).unwrap(), &whole));
        assert!(!is_secret_of(read(&path).unwrap(), &[b'x'; FILE_MAX_BYTES - 1]));
    }

    #[test]
    fn what_the_message_says_to_do_makes_a_secret() {
        let directory = TempDir::new().unwrap();
        let (_, command) = HOW_TO_MAKE_A_SECRET.split_once('`').unwrap();
        let command = command.trim_end_matches('`').replace("FILE", "secret");
        let done = Command::new("sh").args(["-c", &command]).current_dir(&directory).status().unwrap();
        assert!(done.success());
        assert!(read(&directory.path().join("secret")).is_ok());
    }

    /// Secrets that an orchestrator mounts are links.
    #[test]
    fn a_link_counts_as_what_it_leads_to() {
        let directory = TempDir::new().unwrap();
        let path = file(&directory, &[7; 32], 0o600);
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(read(&link).is_ok());
        fs::set_permissions(&path, Permissions::from_mode(0o604)).unwrap();
        assert!(refusal(&link).starts_with("its mode is 604: "));
    }

    #[test]
    fn a_file_that_others_can_read_or_change_is_refused() {
        let directory = TempDir::new().unwrap();
        for mode in [0o640, 0o620, 0o604, 0o602, 0o666] {
            let path = file(&directory, &[7; 32], mode);
            let text = refusal(&path);
            assert!(text.starts_with(&format!("its mode is {mode:o}: others can read or change it.")), "{text}");
            assert!(text.ends_with(&format!("`chmod 600 {}`", path.display())), "{text}");
        }
    }

    #[test]
    fn a_file_of_another_user_is_refused_unless_it_is_roots() {
        let facts = |owner| Facts { regular: true, mode: 0o100_600, owner };
        assert_eq!(problem(Path::new("s"), &facts(1000), 1000), None);
        assert_eq!(problem(Path::new("s"), &facts(ROOT), 1000), None);
        for me in [1000, ROOT] {
            let text = problem(Path::new("s"), &facts(1001), me).unwrap();
            assert!(text.starts_with("it belongs to user 1001, who can change it."), "{text}");
            assert!(text.ends_with(&format!("`chown {me} s`")), "{text}");
        }
        // Only root can give a file away.
        if geteuid().is_root() {
            let directory = TempDir::new().unwrap();
            let path = file(&directory, &[7; 32], 0o600);
            chown(&path, Some(65_534), None).unwrap();
            assert!(refusal(&path).starts_with("it belongs to user 65534, "));
        }
    }

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let directory = TempDir::new().unwrap();
        assert!(refusal(directory.path()).starts_with("it is not a regular file. "));
        let pipe = directory.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(refusal(&pipe).starts_with("it is not a regular file. "));
        assert!(refusal(Path::new("/dev/zero")).starts_with("it is not a regular file. "));
        let socket = directory.path().join("socket");
        let _bound = UnixListener::bind(&socket).unwrap();
        assert!(refusal(&socket).starts_with("cannot open it: "));
    }

    #[test]
    fn a_file_that_is_not_there_is_named_with_how_to_make_one() {
        let directory = TempDir::new().unwrap();
        let text = refusal(&directory.path().join("secret"));
        assert!(text.starts_with("there is no such file. Make a file with at least 32 random octets"), "{text}");
        let denied = unreadable(&io::ErrorKind::PermissionDenied.into());
        assert!(denied.contains("must belong to brokerd's user"), "{denied}");
    }

    #[test]
    fn a_secret_has_32_octets_to_64_kib() {
        let directory = TempDir::new().unwrap();
        for content in [&[b'x'; 31][..], b"", b"0123456789012345678901234567890\r\n"] {
            let text = refusal(&file(&directory, content, 0o600));
            assert!(text.contains(" octets; it must have at least 32. Name a file"), "{text}");
        }
        let text = refusal(&file(&directory, &[b'x'; FILE_MAX_BYTES + 1], 0o600));
        assert!(text.starts_with("it is larger than 65536 octets."), "{text}");
    }

    #[test]
    fn no_message_holds_what_is_in_the_file() {
        let directory = TempDir::new().unwrap();
        for (content, mode) in [(&b"hunter2"[..], 0o600), (b"hunter2", 0o644)] {
            assert!(!refusal(&file(&directory, content, mode)).contains("hunter2"));
        }
    }
}
