//! What an operator wants to be done at the next start: a small file in the data directory, and how it is begun.
//!
//! A node that goes from one cluster to another takes nothing along. What it had is kept beside, as `catalog.before-…` and `store.before-…`, for whoever
//! finds out that it was wanted; nothing removes it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use broker_meta::raft;

use super::{CATALOG, LOG, io_failure, log_failure, read_if_there, remove_if_there, sync_directory, write_synced};
use crate::exit::{Code, Failure};
use crate::node::random;

/// The file.
pub const FILE: &str = "next-start";
/// The directory that becomes the catalog of a cluster that is formed again.
const FORCED: &str = "catalog.forced";
/// What was given up when this node formed its cluster again.
pub const LOST: &str = "force-boot.txt";

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The node is one of another cluster, which has given it a number.
    Join {
        /// Where it was asked for that.
        through: String,
        /// The cluster's identity.
        cluster: [u8; 16],
        /// The number.
        node: u64,
    },
    /// It has left its cluster, and is to be a blank one of its own.
    Leave,
    /// It has lost the others for good, and is to be a cluster of itself with the catalog it has.
    ForceBoot,
}

/// A plan, and how far it is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// What the node had is out of the way.
    pub aside: bool,
}

impl Plan {
    /// Has it done at the next start.
    pub fn write(&self, data_dir: &Path) -> Result<(), Failure> {
        write(data_dir, &Planned { plan: self.clone(), aside: false })
    }
}

impl Planned {
    /// The plan for a data directory, if there is one.
    pub fn read(data_dir: &Path) -> Result<Option<Planned>, Failure> {
        let path = data_dir.join(FILE);
        let Some(text) = read_if_there(&path).map_err(io_failure("read", &path))? else { return Ok(None) };
        let planned = Planned::of_text(&text).ok_or_else(|| {
            let problem = format!("{} makes no sense: remove it, and ask for the change again", path.display());
            Failure::new(Code::Data, problem)
        })?;
        Ok(Some(planned))
    }

    /// Gets what the node had out of the way. It can be done again after a crash at any point.
    pub fn begin(&mut self, data_dir: &Path) -> Result<(), Failure> {
        if self.aside {
            return Ok(());
        }
        match self.plan {
            Plan::Join { .. } => set_aside(data_dir, "before-join")?,
            Plan::Leave => set_aside(data_dir, "before-leave")?,
            Plan::ForceBoot => force_boot(data_dir)?,
        }
        self.aside = true;
        write(data_dir, self)
    }

    fn to_text(&self) -> String {
        let mut text = match &self.plan {
            Plan::Join { through, cluster, node } => {
                let cluster = u128::from_be_bytes(*cluster);
                format!("join\nthrough {through}\ncluster {cluster:032x}\nnode {node}\n")
            }
            Plan::Leave => "leave\n".into(),
            Plan::ForceBoot => "force-boot\n".into(),
        };
        if self.aside {
            text.push_str("aside\n");
        }
        text
    }

    fn of_text(text: &str) -> Option<Planned> {
        let mut lines = text.lines();
        let plan = match lines.next()? {
            "join" => {
                let through = lines.next()?.strip_prefix("through ")?.to_owned();
                let cluster = u128::from_str_radix(lines.next()?.strip_prefix("cluster ")?, 16).ok()?.to_be_bytes();
                let node = lines.next()?.strip_prefix("node ")?.parse().ok()?;
                Plan::Join { through, cluster, node }
            }
            "leave" => Plan::Leave,
            "force-boot" => Plan::ForceBoot,
            _ => return None,
        };
        let aside = match lines.next() {
            None => false,
            Some("aside") => true,
            Some(_) => return None,
        };
        lines.next().is_none().then_some(Planned { plan, aside })
    }
}

/// It is carried out.
pub fn remove(data_dir: &Path) -> Result<(), Failure> {
    remove_if_there(&data_dir.join(FILE))
}

fn write(data_dir: &Path, planned: &Planned) -> Result<(), Failure> {
    let new = data_dir.join(format!("{FILE}.new"));
    write_synced(&new, planned.to_text().as_bytes())?;
    fs::rename(&new, data_dir.join(FILE)).map_err(io_failure("rename", &new))?;
    sync_directory(data_dir)
}

/// The first of `NAME.SUFFIX`, `NAME.SUFFIX-2`, … that is free.
fn free_name(data_dir: &Path, name: &str, suffix: &str) -> PathBuf {
    let first = data_dir.join(format!("{name}.{suffix}"));
    let more = (2_u32..).map(|number| data_dir.join(format!("{name}.{suffix}-{number}")));
    std::iter::once(first).chain(more).find(|path| !path.exists()).unwrap_or_default()
}

fn set_aside(data_dir: &Path, suffix: &str) -> Result<(), Failure> {
    for name in [CATALOG, "store"] {
        let from = data_dir.join(name);
        if from.exists() {
            let to = free_name(data_dir, name, suffix);
            fs::rename(&from, &to).map_err(io_failure("move", &from))?;
            tracing::info!(from = name, to = %to.display(), "what the node had is kept aside");
        }
    }
    sync_directory(data_dir)
}

/// Makes the catalog of a new cluster out of that of the old one, beside it, and puts it in its place.
fn force_boot(data_dir: &Path) -> Result<(), Failure> {
    let (old, new) = (data_dir.join(CATALOG), data_dir.join(FORCED));
    if old.exists() {
        if !old.join(LOG).exists() {
            return Err(Failure::new(
                Code::Config,
                format!(
                    "{} is not that of a member of a cluster, so there is nothing to force: remove {}",
                    data_dir.display(),
                    data_dir.join(FILE).display()
                ),
            ));
        }
        if new.exists() {
            fs::remove_dir_all(&new).map_err(io_failure("remove", &new))?;
        }
        fs::create_dir_all(&new).map_err(io_failure("create", &new))?;
        let cluster = random()?;
        let forced = raft::force_boot(&old, &new, cluster).map_err(log_failure)?;
        let report = told(&forced, cluster);
        for line in report.lines() {
            tracing::warn!("{line}");
        }
        write_synced(&data_dir.join(LOST), report.as_bytes())?;
        fs::rename(&old, free_name(data_dir, CATALOG, "before-force-boot")).map_err(io_failure("move", &old))?;
        sync_directory(data_dir)?;
    }
    // Whole since the old one went.
    fs::rename(&new, &old).map_err(io_failure("move", &new))?;
    sync_directory(data_dir)
}

fn told(forced: &raft::Forced, cluster: [u8; 16]) -> String {
    let hex = |id: [u8; 16]| format!("{:032x}", u128::from_be_bytes(id));
    let mut text = format!(
        "cluster {} was given up, and {} is the only node of cluster {} now\n",
        hex(forced.old_cluster),
        forced.name,
        hex(cluster)
    );
    for lost in &forced.lost {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "lost: {} (node {}), with {} queues and all their messages",
            lost.name, lost.node, lost.queues
        );
    }
    let _ =
        writeln!(text, "changes in the log that may not have been acknowledged, and are kept: {}", forced.uncertain);
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let directory = TempDir::new().unwrap();
        assert_eq!(Planned::read(directory.path()).unwrap(), None);
        let join = Plan::Join { through: "rabbit@b:25672".into(), cluster: [3; 16], node: 12 };
        for plan in [join, Plan::Leave, Plan::ForceBoot] {
            for aside in [false, true] {
                let planned = Planned { plan: plan.clone(), aside };
                write(directory.path(), &planned).unwrap();
                assert_eq!(Planned::read(directory.path()).unwrap(), Some(planned));
            }
        }
        remove(directory.path()).unwrap();
        for wrong in ["", "sleep\n", "leave\nnow\n", "join\nthrough x\ncluster y\nnode 1\n", "leave\naside\naside\n"] {
            fs::write(directory.path().join(FILE), wrong).unwrap();
            let failure = Planned::read(directory.path()).unwrap_err();
            assert!(failure.message.contains("next-start makes no sense"), "{wrong}: {}", failure.message);
        }
    }

    #[test]
    fn what_a_node_had_is_never_overwritten() {
        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name);
        for round in ["one", "two"] {
            for name in ["catalog", "store"] {
                fs::create_dir(path(name)).unwrap();
                fs::write(path(name).join("file"), round).unwrap();
            }
            Plan::Leave.write(directory.path()).unwrap();
            let mut planned = Planned::read(directory.path()).unwrap().unwrap();
            planned.begin(directory.path()).unwrap();
            assert!(!path("catalog").exists() && !path("store").exists());
            // After a crash, what was made since is not moved away.
            fs::create_dir(path("catalog")).unwrap();
            let mut again = Planned::read(directory.path()).unwrap().unwrap();
            again.begin(directory.path()).unwrap();
            assert!(path("catalog").exists());
            fs::remove_dir(path("catalog")).unwrap();
        }
        for (name, content) in [("store.before-leave", "one"), ("store.before-leave-2", "two")] {
            assert_eq!(fs::read_to_string(path(name).join("file")).unwrap(), content);
        }
    }

    #[test]
    fn only_a_member_can_be_forced() {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("catalog")).unwrap();
        Plan::ForceBoot.write(directory.path()).unwrap();
        let mut planned = Planned::read(directory.path()).unwrap().unwrap();
        let failure = planned.begin(directory.path()).unwrap_err();
        assert!(failure.message.contains("is not that of a member of a cluster"), "{}", failure.message);
    }
}
