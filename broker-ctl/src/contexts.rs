//! Contexts: brokers by name, in a file of the operator's own. Its comments stay when it is changed.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use toml_edit::{Array, DocumentMut, Item, Table, Value, value};
use zeroize::Zeroizing;

use crate::exit::{Exit, Failure};
use crate::run::write_private;

type Result<T> = std::result::Result<T, Failure>;

/// Below the directory of configuration files.
const FILE: &str = "brokerctl/config.toml";
/// The file may be this long, in octets.
const FILE_MAX_BYTES: u64 = 1024 * 1024;
/// The table of contexts, by name.
const CONTEXTS: &str = "contexts";
/// The name of the selected one.
const CURRENT: &str = "current";
/// What a context may say.
const KEYS: [&str; 10] = [
    "hosts",
    "user",
    "password_file",
    "password",
    "ca_file",
    "certificate",
    "key",
    "server_name",
    "socket",
    "data_dir",
];

/// What is known of a broker.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// Where it is elsewhere: `HOST` or `HOST:PORT`, tried in order.
    pub hosts: Vec<String>,
    /// Who logs in.
    pub user: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// The password itself.
    pub password: Option<Zeroizing<String>>,
    /// Authorities that its certificate must come from.
    pub ca_file: Option<PathBuf>,
    /// Certificate to show.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Name in its certificate.
    pub server_name: Option<String>,
    /// Where it is on this machine.
    pub socket: Option<PathBuf>,
    /// The same, by its data directory.
    pub data_dir: Option<PathBuf>,
}

/// The file of contexts.
pub struct ContextFile {
    path: PathBuf,
    document: DocumentMut,
}

impl ContextFile {
    /// Where it is for whoever runs this, if they have a home.
    pub fn path() -> Option<PathBuf> {
        let directory = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        // What is not absolute is to be ignored, says the specification of these variables.
        let config = directory("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        let config = config.or_else(|| directory("HOME").map(|home| home.join(".config")));
        config.map(|config| config.join(FILE))
    }

    /// Reads it. One that is not there has no contexts.
    pub fn load() -> Result<Self> {
        let homeless = || {
            let text = "contexts are kept in the home directory, and there is none: set HOME or XDG_CONFIG_HOME";
            Failure::new(Exit::Config, text)
        };
        Self::load_from(&Self::path().ok_or_else(homeless)?)
    }

    fn load_from(path: &Path) -> Result<Self> {
        let wrong = |what: String| Failure::new(Exit::Config, format!("{}: {what}", path.display()));
        let mut text = Zeroizing::new(String::new());
        let mut mode = 0;
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(wrong(error.to_string())),
            Ok(file) => {
                mode = file.metadata().map_err(|error| wrong(error.to_string()))?.permissions().mode();
                let read = file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text);
                read.map_err(|error| wrong(error.to_string()))?;
            }
        }
        if text.len() as u64 > FILE_MAX_BYTES {
            return Err(wrong(format!("it is longer than {FILE_MAX_BYTES} octets")));
        }
        let document: DocumentMut = text.parse().map_err(|error| {
            // Its text shows the line, in which a password may stand.
            let error: toml_edit::TomlError = error;
            wrong(format!("it is not TOML: {}{}", error.message(), place(&text, error.span())))
        })?;
        let file = Self { path: path.into(), document };
        let names = file.names();
        for name in &names {
            let context = file.get(name)?;
            if context.is_some_and(|context| context.password.is_some()) && mode & 0o077 != 0 {
                return Err(wrong(format!(
                    "the context '{name}' holds a password, and others may read the file: chmod 600 it, or keep the password in a file of its own (password_file)"
                )));
            }
        }
        Ok(file)
    }

    /// The names of the contexts.
    pub fn names(&self) -> Vec<String> {
        let contexts = self.document.get(CONTEXTS).and_then(Item::as_table_like);
        contexts.map_or(Vec::new(), |contexts| contexts.iter().map(|(name, _)| name.to_owned()).collect())
    }

    /// The name of the selected one.
    pub fn current(&self) -> Option<&str> {
        self.document.get(CURRENT).and_then(Item::as_str)
    }

    /// The context of that name.
    pub fn get(&self, name: &str) -> Result<Option<Context>> {
        let Some(item) = self.document.get(CONTEXTS).and_then(|contexts| contexts.get(name)) else { return Ok(None) };
        let wrong =
            |what: String| Failure::new(Exit::Config, format!("{}: the context '{name}' {what}", self.path.display()));
        let table = item.as_table_like().ok_or_else(|| wrong("is not a table".into()))?;
        if let Some((unknown, _)) = table.iter().find(|(key, _)| !KEYS.contains(key)) {
            return Err(wrong(format!("has the key '{unknown}', which is not known; there are {}", KEYS.join(", "))));
        }
        let text = |key: &str| match table.get(key).map(Item::as_str) {
            None => Ok(None),
            Some(Some(text)) if !text.is_empty() => Ok(Some(text.to_owned())),
            Some(_) => Err(wrong(format!("has something else than a text as '{key}'"))),
        };
        let path = |key: &str| text(key).map(|text| text.map(PathBuf::from));
        let hosts = match table.get("hosts") {
            None => Vec::new(),
            Some(item) => {
                let hosts = item
                    .as_array()
                    .and_then(|hosts| hosts.iter().map(|host| host.as_str().map(str::to_owned)).collect());
                hosts.ok_or_else(|| wrong("has something else than a list of texts as 'hosts'".into()))?
            }
        };
        let context = Context {
            hosts,
            user: text("user")?,
            password_file: path("password_file")?,
            password: text("password")?.map(Zeroizing::new),
            ca_file: path("ca_file")?,
            certificate: path("certificate")?,
            key: path("key")?,
            server_name: text("server_name")?,
            socket: path("socket")?,
            data_dir: path("data_dir")?,
        };
        let is_here = context.socket.is_some() || context.data_dir.is_some();
        match (is_here, context.hosts.is_empty()) {
            (true, true) | (false, false) => Ok(Some(context)),
            (true, false) => {
                Err(wrong("is said to be both here and elsewhere: it has hosts, and socket or data_dir".into()))
            }
            (false, true) => Err(wrong("is nowhere: it has neither hosts nor socket nor data_dir".into())),
        }
    }

    /// The context of that name, which must be there.
    pub fn named(&self, name: &str) -> Result<Context> {
        self.get(name)?.ok_or_else(|| {
            let known = self.names().join(", ");
            let known = if known.is_empty() { "there is none".into() } else { format!("there are {known}") };
            let text = format!(
                "there is no context '{name}' in {}: {known}. `brokerctl context add` makes one",
                self.path.display()
            );
            Failure::new(Exit::Data, text)
        })
    }

    /// Writes a context down. A password that stands there stays as long as the user does.
    pub fn put(&mut self, name: &str, context: &Context) -> Result<()> {
        let root = self.document.as_table_mut();
        let mut contexts = Table::new();
        contexts.set_implicit(true);
        let contexts = root.entry(CONTEXTS).or_insert(Item::Table(contexts)).as_table_like_mut();
        let not_a_table =
            || Failure::new(Exit::Config, format!("{}: '{CONTEXTS}' is not a table", self.path.display()));
        let contexts = contexts.ok_or_else(not_a_table)?;
        let item = contexts.entry(name).or_insert(Item::Table(Table::new()));
        let table = item.as_table_like_mut().ok_or_else(not_a_table)?;
        let hosts = (!context.hosts.is_empty()).then(|| value(context.hosts.iter().collect::<Array>()));
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| value(path.display().to_string()));
        let text = |text: &Option<String>| text.as_ref().map(value);
        for (key, new) in [
            ("hosts", hosts),
            ("user", text(&context.user)),
            ("password_file", path(&context.password_file)),
            ("password", context.password.as_ref().map(|password| value(password.as_str()))),
            ("ca_file", path(&context.ca_file)),
            ("certificate", path(&context.certificate)),
            ("key", path(&context.key)),
            ("server_name", text(&context.server_name)),
            ("socket", path(&context.socket)),
            ("data_dir", path(&context.data_dir)),
        ] {
            match new {
                None => drop(table.remove(key)),
                // A comment behind it stays.
                Some(mut new) => {
                    let old = table.get(key).and_then(Item::as_value).map(Value::decor).cloned();
                    if let (Some(new), Some(old)) = (new.as_value_mut(), old) {
                        *new.decor_mut() = old;
                    }
                    table.insert(key, new);
                }
            }
        }
        Ok(())
    }

    /// Has a context be the one where none is named, or none of them.
    pub fn select(&mut self, name: Option<&str>) {
        match name {
            Some(name) => drop(self.document.insert(CURRENT, value(name))),
            None => drop(self.document.remove(CURRENT)),
        }
    }

    /// Deletes the context of that name.
    pub fn delete(&mut self, name: &str) {
        if let Some(contexts) = self.document.get_mut(CONTEXTS).and_then(Item::as_table_like_mut) {
            contexts.remove(name);
        }
    }

    /// Writes the file, for its owner's eyes only.
    pub fn save(&self) -> Result<()> {
        let failed =
            |error: io::Error| Failure::new(Exit::Data, format!("cannot write {}: {error}", self.path.display()));
        if let Some(directory) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        }
        // Under its name it is whole.
        let new = self.path.with_extension("toml.new");
        let text = Zeroizing::new(self.document.to_string());
        write_private(&new, text.as_bytes())?;
        fs::rename(&new, &self.path).map_err(failed)
    }
}

fn place(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let line = span.and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    line.map_or_else(String::new, |line| format!(", in line {line}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::Permissions;

    use tempfile::TempDir;

    use super::*;

    fn file(text: &str, mode: u32) -> (TempDir, Result<ContextFile>) {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("config.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let loaded = ContextFile::load_from(&path);
        (directory, loaded)
    }

    fn complaint(text: &str) -> String {
        let failure = file(text, 0o600).1.err().unwrap();
        assert_eq!(failure.exit, Exit::Config);
        failure.text
    }

    #[test]
    fn what_is_written_is_read_again_and_comments_stay() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("new/config.toml");
        let mut contexts = ContextFile::load_from(&path).unwrap();
        assert!(contexts.names().is_empty() && contexts.current().is_none());
        let shop = Context {
            hosts: vec!["a".into(), "b:1".into()],
            user: Some("ann".into()),
            password_file: Some("/p".into()),
            ca_file: Some("/ca".into()),
            ..Context::default()
        };
        contexts.put("shop", &shop).unwrap();
        contexts.put("here", &Context { data_dir: Some("/d".into()), ..Context::default() }).unwrap();
        contexts.select(Some("shop"));
        contexts.save().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);

        let text = fs::read_to_string(&path).unwrap().replace("user = \"ann\"", "user = \"ann\" # the operator");
        fs::write(&path, text).unwrap();
        let mut contexts = ContextFile::load_from(&path).unwrap();
        assert_eq!((contexts.names(), contexts.current()), (vec!["shop".into(), "here".into()], Some("shop")));
        assert!(contexts.named("shop").unwrap() == shop);
        contexts.put("shop", &Context { user: Some("bob".into()), ..shop }).unwrap();
        contexts.delete("here");
        contexts.select(None);
        contexts.save().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("user = \"bob\" # the operator") && !text.contains("here") && !text.contains("current"));
    }

    #[test]
    fn a_password_is_for_its_owners_eyes_only() {
        let text = "[contexts.a]\nhosts = [\"h\"]\nuser = \"u\"\npassword = \"sesame\"\n";
        assert_eq!(*file(text, 0o600).1.unwrap().named("a").unwrap().password.unwrap(), "sesame");
        for mode in [0o644, 0o640, 0o604] {
            let failure = file(text, mode).1.err().unwrap();
            assert!(failure.exit == Exit::Config && failure.text.contains("chmod 600"), "{}", failure.text);
        }
        let without = text.replace("password =", "password_file =");
        assert!(file(&without, 0o644).1.is_ok(), "without a password others may read it");
    }

    #[test]
    fn what_is_wrong_is_said_and_no_password_with_it() {
        assert!(
            complaint("[contexts.a]\nhost = \"h\"\n").contains("the key 'host', which is not known; there are hosts, ")
        );
        assert!(complaint("[contexts.a]\nuser = \"u\"\n").contains("is nowhere"));
        assert!(complaint("[contexts.a]\nhosts = [\"h\"]\nsocket = \"s\"\n").contains("both here and elsewhere"));
        assert!(complaint("[contexts.a]\nhosts = \"h\"\n").contains("a list of texts as 'hosts'"));
        assert!(complaint("[contexts.a]\nhosts = [\"h\"]\nuser = 7\n").contains("as 'user'"));
        assert!(complaint("[contexts]\na = 1\n").contains("'a' is not a table"));
        let broken = complaint("[contexts.a]\nhosts = [\"h\"]\npassword = \"sesame\n");
        assert!(
            broken.contains("it is not TOML") && broken.contains("line 3") && !broken.contains("sesame"),
            "{broken}"
        );
        let missing = file("[contexts.a]\nsocket = \"s\"\n", 0o600).1.unwrap().named("b").err().unwrap();
        assert!(missing.exit == Exit::Data && missing.text.contains("there are a"), "{}", missing.text);
    }
}
