//! Definitions files that the configuration names: imported at boot, and again at SIGHUP.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use broker_core::name::NodeId;
use broker_meta::{Catalog, Command, LocalCatalog};
use broker_mgmt::definitions::DOCUMENT_MAX_BYTES;
use sha2::{Digest, Sha256};

use super::ShardHandle;
use super::import::{Imported, Propose, import, outcome_of, read, rehearse};
use crate::config::{Config, DefinitionsConfig};
use crate::driver::admin::Request;
use crate::exit::{Code, Failure};
use crate::node::ALONE;

/// In the data directory: a hash of the definitions imported last.
const HASH_FILE: &str = "imported-definitions";
/// A directory may hold so many files.
const FILES_MAX: usize = 1_000;

/// Why an import from files failed: which file, and what is wrong.
#[derive(Debug, thiserror::Error)]
#[error("cannot import definitions from {}: {problem}", path.display())]
pub struct ImportFailed {
    path: PathBuf,
    problem: String,
}

/// Imports what the configuration names, before anybody can connect.
///
/// # Errors
/// A file cannot be read, makes no sense, or is refused: the node must not start without what it shall have.
pub fn import_at_boot(catalog: &mut LocalCatalog, data_dir: &Path, config: &Config) -> Result<(), Failure> {
    if config.definitions.path.is_none() {
        return Ok(());
    }
    let copy = catalog.catalog().clone();
    let mut propose = |commands: Vec<Command>| {
        let outcomes = catalog.propose(&commands).map_err(|error| error.to_string())?;
        Ok(outcomes.iter().map(|events| outcome_of(events)).collect())
    };
    import_files(&config.definitions, data_dir, copy, ALONE, &mut propose).map_err(|error| {
        Failure::new(
            Code::Data,
            format!("{error}. The node does not start; correct the file or take load_definitions out"),
        )
    })?;
    warn_of_what_is_missing(catalog, config);
    Ok(())
}

/// Imports what the configuration names while the node runs, on a thread of its own: hashing passwords may take minutes, in which whoever asks for
/// it must hear other things. What goes wrong goes to the log.
pub fn import_again(config: &DefinitionsConfig, data_dir: &Path, shard: &ShardHandle) {
    static RUNNING: Mutex<()> = Mutex::new(());
    if config.path.is_none() {
        return;
    }
    let (config, data_dir, shard) = (config.clone(), data_dir.to_owned(), shard.clone());
    let work = move || {
        let Ok(_running) = RUNNING.try_lock() else {
            tracing::warn!("definitions are being imported already; ask again later");
            return;
        };
        let Ok(catalog) = shard.ask_blocking(Request::Catalog) else { return };
        let mut propose = |commands| shard.propose_blocking(commands);
        if let Err(error) = import_files(&config, &data_dir, catalog, shard.node(), &mut propose) {
            tracing::error!("{error}");
        }
    };
    if let Err(error) = thread::Builder::new().name("definitions".into()).spawn(work) {
        tracing::error!(%error, "cannot import definitions: there is no thread for it");
    }
}

/// Imports the files that a configuration names; nothing if it names none. They are tried on `copy` of the catalog first, all of them.
pub fn import_files(
    config: &DefinitionsConfig,
    data_dir: &Path,
    mut copy: Catalog,
    node: NodeId,
    propose: &mut Propose<'_>,
) -> Result<(), ImportFailed> {
    let Some(path) = &config.path else { return Ok(()) };
    let failed = |path: &Path, problem: String| ImportFailed { path: path.into(), problem };
    let files = files_of(path).map_err(|error| failed(path, error.to_string()))?;
    if files.is_empty() {
        tracing::warn!(path = %path.display(), "there are no definitions to import: the directory holds no file that ends in .json");
    }
    // All are read before the first is imported: a misprint in the last one changes nothing.
    let mut hash = Sha256::new();
    let mut documents = Vec::new();
    for file in files {
        let document = read_bounded(&file).map_err(|error| failed(&file, error.to_string()))?;
        hash = hash.chain_update((document.len() as u64).to_le_bytes()).chain_update(&document);
        documents.push((file, document));
    }
    let hash: String = hash.finalize().iter().map(|octet| format!("{octet:02x}")).collect();
    let hash_file = data_dir.join(HASH_FILE);
    if config.skip_if_unchanged && fs::read_to_string(&hash_file).is_ok_and(|last| last.trim_end() == hash) {
        tracing::info!(path = %path.display(), "definitions are the same as those imported last; passed over");
        return Ok(());
    }
    let mut parsed = Vec::new();
    for (file, document) in documents {
        let commands = read(&document).and_then(|commands| rehearse(commands, &mut copy, node));
        parsed.push((file.clone(), commands.map_err(|problem| failed(&file, problem))?));
    }
    // Until all is imported, the catalog is between two states: whatever is to be imported next is not the same as what was imported last.
    if let Err(error) = forget(&hash_file) {
        return Err(failed(&hash_file, format!("cannot remove it: {error}")));
    }
    for (file, commands) in parsed {
        let imported = import(&commands, propose).map_err(|problem| failed(&file, problem))?;
        tell(&file, &imported);
    }
    if let Err(error) = write_whole(&hash_file, &hash) {
        tracing::warn!(%error, "cannot remember which definitions were imported; they will be imported again");
    }
    Ok(())
}

/// What an import did, for the log.
pub fn tell(from: &Path, imported: &Imported) {
    let Imported { commands, changes, kept, kept_count } = imported;
    for one in kept {
        tracing::warn!("not imported, what is there stays: {one}");
    }
    tracing::info!(from = %from.display(), definitions = commands, changes, left_as_they_are = kept_count, "definitions imported");
}

/// The file itself, or the JSON files of a directory in the order of their names.
fn files_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.into()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        // What is hidden belongs to whoever mounted the directory; a name may be a link to a file.
        let is_hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let is_json = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if !is_hidden && is_json && fs::metadata(&file)?.is_file() {
            files.push(file);
        } else if !is_hidden {
            tracing::warn!(file = %file.display(), "not imported: definitions files end in .json");
        }
        if files.len() > FILES_MAX {
            return Err(io::Error::other(format!("the directory holds more than {FILES_MAX} files")));
        }
    }
    files.sort();
    Ok(files)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut document = Vec::new();
    File::open(path)?.take(DOCUMENT_MAX_BYTES as u64 + 1).read_to_end(&mut document)?;
    Ok(document)
}

fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(new, path)
}

/// A node that nobody can use is a question everybody asks.
fn warn_of_what_is_missing(catalog: &LocalCatalog, config: &Config) {
    let (topology, access) = (catalog.catalog().topology(), catalog.catalog().access());
    let (user, vhost) = (&config.bootstrap.user, &config.bootstrap.vhost);
    if topology.vhosts().next().is_none() {
        tracing::warn!("there is no vhost: the definitions create none, so no client can connect");
    } else if topology.vhost(vhost).is_none() {
        tracing::warn!(
            "there is no vhost '{vhost}': the definitions do not create it, and default_vhost is not created beside definitions"
        );
    }
    if access.users().next().is_none() {
        tracing::warn!("there is no user: the definitions create none, so no client can log in");
    } else if access.user(user).is_none() {
        tracing::warn!(
            "there is no user '{user}': the definitions do not create it, and default_user is not created beside definitions"
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tempfile::TempDir;

    use super::*;
    use crate::driver::mailbox::mailbox;

    fn imported(directory: &Path, config: &DefinitionsConfig) -> Result<usize, String> {
        let mut count = 0;
        let mut propose = |commands: Vec<Command>| {
            count += commands.len();
            Ok(commands.iter().map(|_| Ok(true)).collect())
        };
        import_files(config, directory, Catalog::default(), ALONE, &mut propose).map_err(|error| error.to_string())?;
        Ok(count)
    }

    #[test]
    fn a_directory_is_read_in_the_order_of_names_and_not_again_unchanged() {
        let directory = TempDir::new().unwrap();
        let files = directory.path().join("definitions");
        fs::create_dir(&files).unwrap();
        fs::write(files.join("2.json"), r#"{"users": [{"name": "a"}, {"name": "b"}]}"#).unwrap();
        fs::write(files.join("1.JSON"), r#"{"vhosts": [{"name": "v"}]}"#).unwrap();
        fs::write(files.join("readme"), "no JSON").unwrap();
        fs::write(files.join(".hidden.json"), "no JSON").unwrap();
        assert_eq!(files_of(&files).unwrap(), [files.join("1.JSON"), files.join("2.json")]);
        let config = DefinitionsConfig { path: Some(files.clone()), skip_if_unchanged: false };
        let careful = DefinitionsConfig { skip_if_unchanged: true, ..config.clone() };
        assert_eq!(imported(directory.path(), &config), Ok(3));
        assert_eq!(imported(directory.path(), &config), Ok(3));
        assert_eq!(imported(directory.path(), &careful), Ok(0));
        fs::write(files.join("1.JSON"), r#"{"vhosts": []}"#).unwrap();
        assert_eq!(imported(directory.path(), &careful), Ok(2));
        assert_eq!(imported(directory.path(), &careful), Ok(0));
    }

    /// The shard does not answer here, as if it took long.
    #[test]
    fn who_asks_for_an_import_does_not_wait_for_it() {
        let poll = mio::Poll::new().unwrap();
        let (mailbox, _inbox) = mailbox(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let shard = ShardHandle::new(mailbox, ALONE);
        let (sender, receiver) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let config = DefinitionsConfig { path: Some("/nowhere/d.json".into()), skip_if_unchanged: false };
            import_again(&config, Path::new("/nowhere"), &shard);
            sender.send(()).unwrap();
        });
        assert_eq!(receiver.recv_timeout(std::time::Duration::from_secs(30)), Ok(()));
    }

    #[test]
    fn after_an_import_that_broke_off_nothing_is_the_same_as_before() {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("d.json");
        let config = DefinitionsConfig { path: Some(file.clone()), skip_if_unchanged: true };
        let (one, other) = (r#"{"users": [{"name": "a"}]}"#, r#"{"users": [{"name": "b"}]}"#);
        fs::write(&file, one).unwrap();
        assert_eq!(imported(directory.path(), &config), Ok(1));
        fs::write(&file, other).unwrap();
        let mut broken = |_: Vec<Command>| Err("the node is stopping".to_owned());
        assert!(import_files(&config, directory.path(), Catalog::default(), ALONE, &mut broken).is_err());
        fs::write(&file, one).unwrap();
        assert_eq!(imported(directory.path(), &config), Ok(1));
    }

    #[test]
    fn a_mistake_in_any_file_changes_nothing_and_names_the_file() {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("1.json"), r#"{"vhosts": [{"name": "v"}]}"#).unwrap();
        fs::write(directory.path().join("2.json"), r#"{"vhosts": [{"name": 5}]}"#).unwrap();
        let config = DefinitionsConfig { path: Some(directory.path().into()), skip_if_unchanged: true };
        let error = imported(directory.path(), &config).unwrap_err();
        let file = directory.path().join("2.json");
        assert_eq!(
            error,
            format!("cannot import definitions from {}: vhosts[0].name: expected text, found a number", file.display())
        );
        fs::write(&file, r#"{"permissions": [{"user": "u", "vhost": "v", "configure": "", "write": "", "read": ""}]}"#)
            .unwrap();
        let error = imported(directory.path(), &config).unwrap_err();
        assert!(
            error.ends_with("user 'u' does not exist. Nothing was imported; correct it and import again"),
            "{error}"
        );
        let missing = DefinitionsConfig { path: Some("/nowhere/d.json".into()), skip_if_unchanged: false };
        assert!(imported(directory.path(), &missing).unwrap_err().contains("/nowhere/d.json: No such file"));
    }
}
