//! The `ctl` step: an administrator's commands, and what takes them back at the end of a scenario.

use harness::Control;

use crate::{Error, text};

/// The administrator of the broker that a scenario is played against.
#[derive(Debug)]
pub struct Operator<'a> {
    control: Option<&'a Control>,
    /// What takes back the commands so far, in their order.
    undo: Vec<Vec<String>>,
}

impl<'a> Operator<'a> {
    /// An administrator; nothing where the broker is only known by its port.
    pub fn new(control: Option<&'a Control>) -> Self {
        Operator { control, undo: Vec::new() }
    }

    /// Runs a command; false when the broker refused it.
    pub fn run(&mut self, words: &[&str]) -> Result<bool, Error> {
        let words = words.iter().map(|word| plain(word)).collect::<Result<Vec<String>, Error>>()?;
        self.undo.retain(|undo| *undo != words);
        let succeeded = self.execute(&words)?;
        if succeeded {
            self.undo.extend(undo(&words).filter(|undo| !self.undo.contains(undo)));
        }
        Ok(succeeded)
    }

    /// Takes back what is left, the last first, so that a policy goes before its vhost.
    pub fn end(&mut self) -> Result<(), Error> {
        while let Some(words) = self.undo.pop() {
            if !self.execute(&words)? {
                return Err(Error::new(format!("the broker refused: {}", words.join(" "))));
            }
        }
        Ok(())
    }

    fn execute(&self, words: &[String]) -> Result<bool, Error> {
        let control = self.control.ok_or_else(|| Error::new("this broker has no administrator here"))?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Ok(control.run(&words)?.succeeded)
    }
}

/// A word without its quotes; JSON in braces stays as it is.
fn plain(word: &str) -> Result<String, Error> {
    if word.starts_with('{') { Ok(word.to_owned()) } else { Ok(String::from_utf8_lossy(&text::octets(word)?).into()) }
}

/// The command that takes back a command, for those that leave something behind. What a vhost or user holds goes with it.
fn undo(words: &[String]) -> Option<Vec<String>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let undo: &[&str] = match words.as_slice() {
        ["add_vhost", name, ..] => &["delete_vhost", name],
        ["add_user", name, ..] => &["delete_user", name],
        ["set_policy", name, ..] if !name.starts_with('-') => &["clear_policy", name],
        ["set_operator_policy", name, ..] if !name.starts_with('-') => &["clear_operator_policy", name],
        ["set_vm_memory_high_watermark", ..] => &["set_vm_memory_high_watermark", "0.4"],
        ["set_disk_free_limit", ..] => &["set_disk_free_limit", "50MB"],
        _ => return None,
    };
    let undo = undo.iter().map(|word| (*word).to_owned()).collect();
    Some(undo).filter(|undo: &Vec<String>| *undo != words)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn words(line: &str) -> Vec<String> {
        text::words(line).unwrap().iter().map(|word| plain(word).unwrap()).collect()
    }

    #[test]
    fn what_leaves_something_behind_is_taken_back() {
        assert_eq!(undo(&words("add_vhost v")).unwrap(), words("delete_vhost v"));
        assert_eq!(undo(&words("set_policy p ^q$ {\"max-length\":1} --priority 1")).unwrap(), words("clear_policy p"));
        assert_eq!(undo(&words("set_policy -p v p ^q$ {}")), None);
        assert_eq!(undo(&words("delete_user u")), None);
        assert_eq!(undo(&words("set_vm_memory_high_watermark 0.4")), None);
    }

    #[test]
    fn json_keeps_its_quotes_and_strings_lose_theirs() {
        assert_eq!(words("x {\"a\":\"b c\"} \"d e\""), ["x", "{\"a\":\"b c\"}", "d e"]);
    }
}
