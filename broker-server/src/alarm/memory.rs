//! How much memory there is and how much of it is ours, as /proc and the control groups say.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Memory this process may use: of the machine, or of the narrowest control group around it, in bytes.
///
/// # Errors
/// /proc cannot be read.
pub fn total_memory_bytes() -> io::Result<u64> {
    total_below(Path::new("/"))
}

/// Resident memory of this process, in bytes.
pub(super) fn resident_bytes() -> io::Result<u64> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| io::Error::other("/proc/self/statm has an unknown form"))?;
    Ok(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// The same for a system whose files lie below `root`.
fn total_below(root: &Path) -> io::Result<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo"))?;
    let total = machine_bytes(&meminfo).ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal"))?;
    // A kernel without control groups has neither file.
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    let limits = limit_files(&groups, &mounts).into_iter().filter_map(|path| {
        let path = root.join(path.strip_prefix("/").unwrap_or(&path));
        // "max", or no file in a group without the memory controller: no limit.
        fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    });
    Ok(limits.filter(|limit| *limit > 0).fold(total, u64::min))
}

fn machine_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// The files that may limit us: of our own group and of each above it, in version 2 and in version 1.
fn limit_files(groups: &str, mounts: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (kind, option, name) = match controllers {
            "" => ("cgroup2", None, "memory.max"),
            list if list.split(',').any(|one| one == "memory") => ("cgroup", Some("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        let Some((root, mounted_at)) = mount_of(mounts, kind, option) else { continue };
        // Seen from inside a container the group may lie above what is mounted; then the mount is our group.
        let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        files.extend(below.ancestors().map(|group| Path::new(mounted_at).join(group).join(name)));
    }
    files
}

/// Root and mount point of the first mount of this kind with this option, from the lines of mountinfo(5).
fn mount_of<'a>(mounts: &'a str, kind: &str, option: Option<&str>) -> Option<(&'a str, &'a str)> {
    mounts.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut file_system = file_system.split(' ');
        let is_kind = file_system.next() == Some(kind);
        let options = file_system.nth(1).unwrap_or("");
        let has_option = option.is_none_or(|option| options.split(',').any(|one| one == option));
        (is_kind && has_option).then_some((root, point))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tempfile::TempDir;

    use super::*;

    /// A system with these files, and 8 GiB of memory.
    fn system(files: &[(&str, &str)]) -> TempDir {
        let root = TempDir::new().unwrap();
        let meminfo = ("proc/meminfo", "MemFree: 1 kB\nMemTotal:        8388608 kB\n");
        for (path, text) in files.iter().chain([&meminfo]) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const GIB: u64 = 1 << 30;

    #[test]
    fn without_control_groups_it_is_the_machine() {
        assert_eq!(total_below(system(&[]).path()).unwrap(), 8 * GIB);
    }

    #[test]
    fn version_2_counts_the_narrowest_group() {
        let root = system(&[
            ("proc/self/cgroup", "0::/system.slice/b.service\n"),
            ("proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            ("sys/fs/cgroup/system.slice/b.service/memory.max", "max\n"),
            ("sys/fs/cgroup/system.slice/memory.max", "1073741824\n"),
        ]);
        assert_eq!(total_below(root.path()).unwrap(), GIB);
    }

    #[test]
    fn version_1_counts_the_memory_hierarchy() {
        let root = system(&[
            ("proc/self/cgroup", "5:devices:/\n4:cpu,memory:/docker/abc\n0::/\n"),
            (
                "proc/self/mountinfo",
                "35 31 0:1 /docker/abc /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                 36 31 0:2 /docker/abc /sys/fs/cgroup/memory rw,relatime shared:1 - cgroup cgroup rw,memory\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2147483648\n"),
        ]);
        assert_eq!(total_below(root.path()).unwrap(), 2 * GIB);
    }

    #[test]
    fn a_limit_above_the_machine_is_none() {
        let root = system(&[
            ("proc/self/cgroup", "4:memory:/\n"),
            ("proc/self/mountinfo", "36 31 0:2 / /cg rw - cgroup cgroup rw,memory\n"),
            ("cg/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(total_below(root.path()).unwrap(), 8 * GIB);
    }

    #[test]
    fn this_machine_has_memory_and_we_use_less() {
        let (total, used) = (total_memory_bytes().unwrap(), resident_bytes().unwrap());
        assert!(used > 0 && used < total, "{used} of {total}");
    }
}
