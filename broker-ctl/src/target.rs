//! Which broker is asked: what the command line, a context and the environment say of it, the strongest first.

use std::io;
use std::path::{Path, PathBuf};

use proto::admin::SOCKET_NAME;
use zeroize::Zeroizing;

use crate::args::Where;
use crate::contexts::{Context, ContextFile};
use crate::exit::{Exit, Failure};
use crate::remote::Remote;
use crate::run::read_password;

type Result<T> = std::result::Result<T, Failure>;

/// The data directory unless told otherwise, as brokerd has it.
const DEFAULT_DATA_DIR: &str = "data";

/// A broker.
#[derive(Clone)]
pub enum Target {
    /// On this machine, at this socket.
    Here(PathBuf),
    /// Elsewhere.
    Elsewhere(Box<Remote>),
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// A user, whose password is needed elsewhere.
    User,
    /// Nobody in particular: what is asked is told to anybody.
    Anybody,
}

impl Target {
    /// The broker that is meant. Passwords are read here: before there is a clock.
    pub fn of(said: &Where, asking: Asking) -> Result<Target> {
        Self::chosen(said, asking, true)
    }

    /// The same for old scripts, which know nothing of a context that was selected.
    pub fn of_old_words(said: &Where) -> Result<Target> {
        Self::chosen(said, Asking::User, false)
    }

    fn chosen(said: &Where, asking: Asking, may_be_selected: bool) -> Result<Target> {
        let context = context(said, may_be_selected)?;
        if let Some(socket) = context.socket {
            return here(said, socket);
        }
        if let Some(directory) = context.data_dir {
            return here(said, directory.join(SOCKET_NAME));
        }
        if context.hosts.is_empty() {
            return here(said, Path::new(DEFAULT_DATA_DIR).join(SOCKET_NAME));
        }
        elsewhere(context, asking).map(|remote| Target::Elsewhere(Box::new(remote)))
    }

    /// The data directory, if that is where the socket is looked for.
    pub fn data_dir(said: &Where) -> Result<Option<PathBuf>> {
        let context = context(said, true)?;
        let is_default = context.socket.is_none() && context.hosts.is_empty();
        Ok(context.data_dir.or_else(|| is_default.then(|| DEFAULT_DATA_DIR.into())))
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn path_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// What is known of the broker: who names a place means that and no other.
fn context(said: &Where, may_be_selected: bool) -> Result<Context> {
    if said.socket.is_some() || said.data_dir.is_some() {
        // The socket counts where both are named.
        let data_dir = said.data_dir.clone().filter(|_| said.socket.is_none());
        return Ok(Context { socket: said.socket.clone(), data_dir, ..Context::default() });
    }
    let named = |name: &str| ContextFile::load().and_then(|file| file.named(name));
    let mut context = if let Some(name) = &said.context {
        named(name)?
    } else if !said.host.is_empty() {
        Context::default()
    } else if let Some(socket) = path_variable("BROKERCTL_SOCKET") {
        Context { socket: Some(socket), ..Context::default() }
    } else if let Some(data_dir) = path_variable("BROKERCTL_DATA_DIR") {
        Context { data_dir: Some(data_dir), ..Context::default() }
    } else if let Some(hosts) = variable("BROKERCTL_HOST") {
        let hosts = hosts.split(',').map(|host| host.trim().to_owned()).filter(|host| !host.is_empty());
        Context { hosts: hosts.collect(), ..Context::default() }
    } else if let Some(name) = variable("BROKERCTL_CONTEXT") {
        named(&name)?
    } else if may_be_selected && ContextFile::path().is_some_and(|path| path.exists()) {
        let file = ContextFile::load()?;
        file.current().map_or_else(|| Ok(Context::default()), |name| file.named(name))?
    } else {
        Context::default()
    };
    overlay(&mut context, said);
    Ok(context)
}

/// The command line is stronger than the context.
pub fn overlay(context: &mut Context, said: &Where) {
    if !said.host.is_empty() {
        context.hosts = said.host.clone();
    }
    if said.login.is_some() && said.login != context.user {
        // Another one's password is none of its.
        (context.password, context.password_file) = (None, None);
    }
    if said.login_password_file.is_some() {
        context.password = None;
    }
    let over = |place: &mut Option<PathBuf>, path: &Option<PathBuf>| {
        if path.is_some() {
            place.clone_from(path);
        }
    };
    over(&mut context.password_file, &said.login_password_file);
    over(&mut context.ca_file, &said.ca_file);
    over(&mut context.certificate, &said.certificate);
    over(&mut context.key, &said.key);
    for (place, text) in [(&mut context.user, &said.login), (&mut context.server_name, &said.server_name)] {
        if text.is_some() {
            place.clone_from(text);
        }
    }
}

/// On this machine nobody logs in.
fn here(said: &Where, socket: PathBuf) -> Result<Target> {
    let options = [
        ("--host", !said.host.is_empty()),
        ("--login", said.login.is_some()),
        ("--login-password-file", said.login_password_file.is_some()),
        ("--ca-file", said.ca_file.is_some()),
        ("--certificate", said.certificate.is_some()),
        ("--key", said.key.is_some()),
        ("--server-name", said.server_name.is_some()),
    ];
    match options.into_iter().find(|(_, is_said)| *is_said) {
        Some((option, _)) => Err(Failure::usage(format!(
            "{option} is for a broker elsewhere, and the one that is meant is on this machine ({}): name the other with --host HOST or --context NAME",
            socket.display()
        ))),
        None => Ok(Target::Here(socket)),
    }
}

/// What the context leaves open, the environment says: never the other way round, so that no password goes to a broker it is not for.
fn elsewhere(context: Context, asking: Asking) -> Result<Remote> {
    let user = context.user.clone().or_else(|| variable("BROKERCTL_USER"));
    let login = match (asking, user) {
        (Asking::Anybody, _) => None,
        (Asking::User, Some(user)) => {
            let password = password(&context, &user)?;
            Some((user, password))
        }
        (Asking::User, None) => {
            return Err(Failure::usage(format!(
                "it is not known who logs in at {}: say --login USER, set BROKERCTL_USER, or `brokerctl context add NAME --login USER`",
                context.hosts.join(", ")
            )));
        }
    };
    let certificate = context.certificate.or_else(|| path_variable("BROKERCTL_CERTIFICATE"));
    let key = context.key.or_else(|| path_variable("BROKERCTL_KEY"));
    let shown = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err(Failure::usage("--certificate and --key go together")),
    };
    let ca_file = context.ca_file.or_else(|| path_variable("BROKERCTL_CA_FILE"));
    let server_name = context.server_name.or_else(|| variable("BROKERCTL_SERVER_NAME"));
    Remote::new(&context.hosts, login, ca_file.as_deref(), shown, server_name)
}

fn password(context: &Context, user: &str) -> Result<Zeroizing<String>> {
    let of_file = context.password_file.clone();
    if let Some(file) =
        of_file.or_else(|| context.password.is_none().then(|| path_variable("BROKERCTL_PASSWORD_FILE")).flatten())
    {
        return read_password(Some(&file)).map(Zeroizing::new);
    }
    if let Some(password) = &context.password {
        return Ok(password.clone());
    }
    if let Some(password) = variable("BROKERCTL_PASSWORD") {
        return Ok(Zeroizing::new(password));
    }
    let asked = rpassword::prompt_password(format!("password of {user} at {}: ", context.hosts.join(", ")));
    asked.map(Zeroizing::new).map_err(|error: io::Error| {
        Failure::new(
            Exit::Usage,
            format!(
                "the password of {user} is needed, and there is no terminal to ask for it ({error}): name a file that holds it with --login-password-file or BROKERCTL_PASSWORD_FILE, or set BROKERCTL_PASSWORD"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_command_line_is_stronger_than_the_context_and_takes_no_other_ones_password() {
        let context = || Context {
            hosts: vec!["a".into()],
            user: Some("ann".into()),
            password_file: Some("/ann".into()),
            password: Some(Zeroizing::new("sesame".into())),
            ca_file: Some("/ca".into()),
            ..Context::default()
        };
        let laid = |said: Where| {
            let mut context = context();
            overlay(&mut context, &said);
            context
        };
        assert!(laid(Where::default()) == context());
        let other = laid(Where { login: Some("bob".into()), host: vec!["b".into()], ..Where::default() });
        assert_eq!((other.hosts, other.user.as_deref()), (vec!["b".to_owned()], Some("bob")));
        assert!(other.password.is_none() && other.password_file.is_none() && other.ca_file.is_some());
        let same = laid(Where { login: Some("ann".into()), ..Where::default() });
        assert!(same.password.is_some() && same.password_file.is_some());
        let file = laid(Where { login_password_file: Some("/new".into()), ..Where::default() });
        assert!(file.password.is_none() && file.password_file == Some("/new".into()));
    }

    #[test]
    fn what_is_for_elsewhere_means_nothing_here() {
        let said = Where { socket: Some("/s".into()), login: Some("ann".into()), ..Where::default() };
        let failure = Target::of(&said, Asking::User).err().unwrap();
        assert!(
            failure.exit == Exit::Usage && failure.text.starts_with("--login is for a broker elsewhere"),
            "{}",
            failure.text
        );
        let said = Where { data_dir: Some("/d".into()), ..Where::default() };
        let Target::Here(socket) = Target::of(&said, Asking::User).unwrap() else { unreachable!() };
        assert_eq!((socket, Target::data_dir(&said).unwrap()), ("/d/admin.sock".into(), Some("/d".into())));
        let both = Where { socket: Some("/s".into()), ..said };
        assert_eq!(Target::data_dir(&both).unwrap(), None);
    }
}
