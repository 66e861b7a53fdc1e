//! Certificates and keys in PEM files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A file may be this large: a system's whole bundle of authorities is a quarter of a megabyte.
const FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What is wrong with a file, in the words of a log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key} = {}: {problem}", path.display())]
pub struct FileProblem {
    /// The key of the configuration.
    pub key: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, and what to do.
    pub problem: String,
}

/// What tells one state of a file from another: all of it changes when a file is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileState {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl FileState {
    /// The state of a file, the default for one that cannot be seen.
    pub fn of(path: &Path) -> Self {
        fs::metadata(path).map_or_else(
            |_| Self::default(),
            |file| Self { inode: file.ino(), bytes: file.size(), modified: (file.mtime(), file.mtime_nsec()) },
        )
    }
}

/// The certificates of a file, at least one.
pub fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, FileProblem> {
    let octets = read(key, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&octets).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(problem(key, path, "there is no certificate in it (a line BEGIN CERTIFICATE is looked for)")),
        Err(error) => Err(problem(key, path, &format!("it is not PEM: {error}"))),
    }
}

/// The authorities of a file.
pub fn authorities(key: &'static str, path: &Path) -> Result<RootCertStore, FileProblem> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(key, path)? {
        let added = store.add(certificate);
        added.map_err(|error| problem(key, path, &format!("it holds no certificate of an authority: {error}")))?;
    }
    Ok(store)
}

/// The private key of a file.
pub fn private_key(key: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, FileProblem> {
    let octets = read(key, path)?;
    match PrivateKeyDer::from_pem_slice(&octets) {
        Ok(found) => Ok(found),
        Err(_) if is_encrypted(&octets) => Err(encrypted(key, path)),
        Err(rustls::pki_types::pem::Error::NoItemsFound) => {
            Err(problem(key, path, "there is no private key in it (a line BEGIN PRIVATE KEY is looked for)"))
        }
        Err(error) => Err(problem(key, path, &format!("it is not PEM: {error}"))),
    }
}

/// A complaint about a key's file.
pub fn problem(key: &'static str, path: &Path, problem: &str) -> FileProblem {
    FileProblem { key, path: path.into(), problem: problem.into() }
}

/// The older way of encrypting keeps the label of a plain key, so what is decoded makes no sense.
pub fn encrypted_if_so(key: &'static str, path: &Path) -> Option<FileProblem> {
    read(key, path).ok().filter(|octets| is_encrypted(octets)).map(|_| encrypted(key, path))
}

fn encrypted(key: &'static str, path: &Path) -> FileProblem {
    let shown = path.display();
    let text = format!("the key is encrypted, which is not supported. Decrypt it: openssl pkey -in {shown} -out FILE");
    problem(key, path, &text)
}

fn is_encrypted(octets: &[u8]) -> bool {
    octets.windows(9).any(|window| window == b"ENCRYPTED")
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, FileProblem> {
    let mut octets = Vec::new();
    let outcome = File::open(path).and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_end(&mut octets));
    match outcome {
        Ok(_) if octets.len() as u64 > FILE_MAX_BYTES => {
            Err(problem(key, path, &format!("it is larger than {FILE_MAX_BYTES} bytes")))
        }
        Ok(_) => Ok(octets),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(problem(key, path, "there is no such file")),
        Err(error) => Err(problem(key, path, &format!("cannot read it: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        let said = |octets: &[u8]| {
            fs::write(&path, octets).unwrap();
            private_key("ssl_options.keyfile", &path).unwrap_err().problem
        };
        assert!(said(b"").contains("no private key"));
        assert!(
            said(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
                .contains("openssl pkey")
        );
        assert!(said(b"-----BEGIN PRIVATE KEY-----\nAAAA\n").contains("not PEM"));
        let text = certificates("ssl_options.certfile", &directory.path().join("none.pem")).unwrap_err().to_string();
        assert!(
            text.starts_with("ssl_options.certfile = /") && text.ends_with("none.pem: there is no such file"),
            "{text}"
        );
    }

    #[test]
    fn a_replaced_file_has_another_state() {
        let directory = tempfile::tempdir().unwrap();
        let (path, new) = (directory.path().join("a"), directory.path().join("b"));
        assert_eq!(FileState::of(&path), FileState::default());
        fs::write(&path, "x").unwrap();
        let before = FileState::of(&path);
        assert_eq!(FileState::of(&path), before);
        fs::write(&new, "y").unwrap();
        fs::rename(&new, &path).unwrap();
        assert_ne!(FileState::of(&path), before);
    }
}
