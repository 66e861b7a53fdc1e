//! Words of a command line in the old syntax: options may stand anywhere.

use std::path::PathBuf;

use crate::exit::Failure;

/// A command with its arguments and options.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Words {
    /// The command.
    pub command: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// `-p`, `--vhost`
    pub vhost: Option<String>,
    /// `-q`: no explanations; `-s`: no headings of tables either.
    pub quiet: bool,
    /// Headings of tables.
    pub headers: bool,
    /// `--formatter json`
    pub json: bool,
    /// `-t`, in seconds.
    pub timeout: Option<u64>,
    /// `--priority`
    pub priority: Option<i64>,
    /// `--apply-to`
    pub apply_to: Option<String>,
    /// `--if-empty`
    pub if_empty: bool,
    /// `--if-unused`
    pub if_unused: bool,
    /// `--global`
    pub global: bool,
    /// `--limit`
    pub limit: u32,
    /// `--user`
    pub user: Option<String>,
    /// `--description`
    pub description: Option<String>,
    /// `--tags`
    pub tags: Option<String>,
    /// `--default-queue-type`
    pub default_queue_type: Option<String>,
    /// Where the broker is: an addition to the old syntax.
    pub socket: Option<PathBuf>,
    /// The same.
    pub data_dir: Option<PathBuf>,
    /// The same.
    pub context: Option<String>,
}

/// Options that mean nothing here and take a value.
const IGNORED_WITH_VALUE: &[&str] =
    &["-n", "--node", "--erlang-cookie", "--per-connection-delay", "--format", "--script-name"];
/// Options that mean nothing here.
const IGNORED: &[&str] = &[
    "-l",
    "--longnames",
    "--dry-run",
    "--online",
    "--offline",
    "--local",
    "--verbose",
    "--skip-if-unchanged",
    "--disc",
    "--ram",
];

impl Words {
    /// Reads the words after the program's name.
    pub fn parse(arguments: &[String]) -> Result<Words, Failure> {
        let mut words = Words { headers: true, ..Words::default() };
        let mut rest = arguments.iter();
        let mut only_arguments = false;
        while let Some(word) = rest.next() {
            if only_arguments || !is_option(word) {
                words.take_argument(word);
            } else if word == "--" {
                only_arguments = true;
            } else {
                let (name, attached) = match word.split_once('=') {
                    Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                    _ => (word.as_str(), None),
                };
                words.take_option(name, attached, &mut rest)?;
            }
        }
        if words.command.is_empty() {
            return Err(Failure::usage(
                "no command was given. Usage: rabbitmqctl [-q] [-p VHOST] COMMAND [ARGUMENT ...]",
            ));
        }
        Ok(words)
    }

    /// The vhost, `/` if none is named.
    pub fn vhost(&self) -> String {
        self.vhost.clone().unwrap_or_else(|| "/".into())
    }

    /// As many arguments as the usage names.
    pub fn exactly<const N: usize>(&self, usage: &str) -> Result<[&str; N], Failure> {
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let count = arguments.len();
        arguments.try_into().map_err(|_| {
            let problem = if count < N { "not enough arguments" } else { "too many arguments" };
            Failure::usage(format!("{problem}. Usage: rabbitmqctl {usage}"))
        })
    }

    fn take_argument(&mut self, word: &str) {
        if self.command.is_empty() {
            self.command = word.into();
        } else {
            self.arguments.push(word.into());
        }
    }

    fn take_option<'a>(
        &mut self,
        name: &str,
        attached: Option<String>,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), Failure> {
        let mut value = || {
            let value = attached.clone().or_else(|| rest.next().cloned());
            value.ok_or_else(|| Failure::usage(format!("{name} needs a value")))
        };
        match name {
            "-p" | "--vhost" => self.vhost = Some(value()?),
            "-q" | "--quiet" => self.quiet = true,
            "-s" | "--silent" => (self.quiet, self.headers) = (true, false),
            "--no-table-headers" => self.headers = false,
            "-t" | "--timeout" => self.timeout = seconds(&value()?)?,
            "--formatter" => {
                let form = value()?;
                self.json = match form.as_str() {
                    "json" => true,
                    "table" | "pretty_table" | "string" => false,
                    _ => {
                        return Err(Failure::usage(format!(
                            "there is no formatter '{form}' here; there are table and json"
                        )));
                    }
                };
            }
            "--priority" => self.priority = Some(number(name, &value()?)?),
            "--apply-to" => self.apply_to = Some(value()?),
            "-e" | "--if-empty" => self.if_empty = true,
            "-u" | "--if-unused" => self.if_unused = true,
            "--global" => self.global = true,
            "--limit" => self.limit = number(name, &value()?)?,
            "--user" => self.user = Some(value()?),
            "--description" => self.description = Some(value()?),
            "--tags" => self.tags = Some(value()?),
            "--default-queue-type" => self.default_queue_type = Some(value()?),
            "--socket" => self.socket = Some(value()?.into()),
            "--data-dir" => self.data_dir = Some(value()?.into()),
            "--context" => self.context = Some(value()?),
            "-h" | "--help" => self.take_argument("help"),
            name if IGNORED.contains(&name) => {}
            name if IGNORED_WITH_VALUE.contains(&name) => drop(value()?),
            _ => return Err(Failure::usage(format!("Invalid options for this command: {name}"))),
        }
        Ok(())
    }
}

/// A minus alone is standard input, and negative numbers are arguments.
fn is_option(word: &str) -> bool {
    word.strip_prefix('-')
        .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(|first: char| first.is_ascii_digit()))
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure::usage(format!("{name} takes a whole number, not '{text}'")))
}

/// Of `infinity`, the longest that is waited for.
fn seconds(text: &str) -> Result<Option<u64>, Failure> {
    if text == "infinity" {
        return Ok(Some(86_400));
    }
    number::<u64>("--timeout", text).map(|seconds| Some(seconds.clamp(1, 86_400)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn words(line: &str) -> Result<Words, Failure> {
        Words::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_stand_anywhere() {
        let expected = Words {
            command: "set_policy".into(),
            arguments: vec!["p".into(), "^".into(), "{}".into()],
            vhost: Some("v".into()),
            priority: Some(-3),
            apply_to: Some("queues".into()),
            headers: true,
            ..Words::default()
        };
        for line in [
            "set_policy -p v p ^ {} --priority -3 --apply-to queues",
            "-n rabbit@host -p v set_policy --priority=-3 --apply-to=queues p ^ {}",
            "-l set_policy p ^ --vhost v {} --apply-to queues --priority -3 --node x",
        ] {
            assert_eq!(words(line), Ok(Words { ..expected_like(&expected) }), "{line}");
        }
        assert_eq!(words("set_permissions u -- -a -b -c").unwrap().arguments, ["u", "-a", "-b", "-c"]);
        assert_eq!(words("export_definitions -").unwrap().arguments, ["-"]);
    }

    fn expected_like(words: &Words) -> Words {
        Words {
            command: words.command.clone(),
            arguments: words.arguments.clone(),
            vhost: words.vhost.clone(),
            priority: words.priority,
            apply_to: words.apply_to.clone(),
            headers: words.headers,
            ..Words::default()
        }
    }

    #[test]
    fn what_is_not_understood_is_a_wrong_command_line() {
        for line in ["", "list_queues --bogus", "list_queues -p", "list_queues --formatter erlang", "x --limit y"] {
            assert_eq!(words(line).unwrap_err().exit as u8, 64, "{line}");
        }
        let two = words("add_user a b c").unwrap();
        assert!(two.exactly::<2>("add_user USER PASSWORD").unwrap_err().text.starts_with("too many arguments"));
    }
}
