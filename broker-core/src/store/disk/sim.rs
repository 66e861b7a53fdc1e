//! A disk in memory with the faults of real ones, all drawn from a seed: at a crash un-synced writes are lost, kept or torn by sector, names whose
//! directory was not synced are lost, and calls can be made to fail.
//!
//! Rules, as Linux file systems keep them: a sector of 512 octets is written whole or not, and holds some prefix of the writes made to it; a failed
//! sync leaves the lost pages readable and marked clean, so that a second sync would lie; a rename is there or not, never half. Directories
//! themselves are durable when created.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile, Entry};

const SECTOR_BYTES: u64 = 512;

/// A simulated disk. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk(Arc<Mutex<State>>);

/// What happens to writes and names that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// All are lost.
    LoseAll,
    /// All are kept: the process died, the machine did not.
    KeepAll,
    /// Each sector and each name change is kept or lost by chance.
    Torn,
}

/// A call that fails once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// A read returns EIO.
    Read,
    /// A write returns EIO; part of it may have reached the disk.
    Write,
    /// A sync of a file returns EIO; of what it covered some is lost, and later syncs will not say so.
    Sync,
    /// A sync of a directory returns EIO.
    SyncDir,
}

#[derive(Debug, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<PathBuf, u64>,
    dirs: BTreeSet<PathBuf>,
    durable_names: BTreeMap<PathBuf, u64>,
    pending_names: Vec<NameChange>,
    capacity: Option<u64>,
    /// Calls of this kind until one fails.
    faults: BTreeMap<Fault, u64>,
    changes: u64,
    stop_at: Option<u64>,
    random: u64,
}

#[derive(Debug, Default, Clone)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, octets: Vec<u8> },
    Length(u64),
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl SimDisk {
    /// An empty disk. Everything that chance decides follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let state = State { random: seed ^ 0x9E37_79B9_7F4A_7C15, ..State::default() };
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// The disk that a machine finds when it starts again after a crash now. Faults, capacity and the stop are not carried over. The old
    /// disk must not be used any more: its files would still change.
    pub fn crash(&self, how: Crash) -> SimDisk {
        let mut state = self.state();
        let names = state.names_after_crash(how);
        let mut inodes = BTreeMap::new();
        for &inode in names.values() {
            let content = state.content_after_crash(inode, how);
            inodes.insert(inode, Inode { durable: content.clone(), current: content, pending: Vec::new() });
        }
        let next = State {
            inodes,
            next_inode: state.next_inode,
            durable_names: names.clone(),
            names,
            dirs: state.dirs.clone(),
            random: state.draw(),
            ..State::default()
        };
        SimDisk(Arc::new(Mutex::new(next)))
    }

    /// How many calls changed the disk so far.
    pub fn changes(&self) -> u64 {
        self.state().changes
    }

    /// The machine goes off at the `change`-th call that changes the disk (counted from 1 since the disk began): it and all later calls fail.
    pub fn stop_at(&self, change: u64) {
        self.state().stop_at = Some(change);
    }

    /// Makes the `nth` call from now (1 is the next) of this kind fail.
    pub fn fail(&self, fault: Fault, nth: u64) {
        self.state().faults.insert(fault, nth);
    }

    /// Whether an ordered fault has not struck yet.
    pub fn fault_pending(&self, fault: Fault) -> bool {
        self.state().faults.contains_key(&fault)
    }

    /// Octets that all files together may hold; `None` is no limit.
    pub fn set_capacity(&self, octets: Option<u64>) {
        self.state().capacity = octets;
    }

    /// Octets that all files together hold.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Flips one bit of a file, as a rotting disk does: on the platter and in what is read from now on. `bit` is taken modulo the file's
    /// length. Whether there was such a file with something in it.
    pub fn flip(&self, path: &Path, bit: u64) -> bool {
        let mut state = self.state();
        let Some(inode) = state.names.get(path).copied() else { return false };
        let Some(inode) = state.inodes.get_mut(&inode) else { return false };
        let bits = inode.current.len() as u64 * 8;
        if bits == 0 {
            return false;
        }
        let (at, mask) = (((bit % bits) / 8) as usize, 1_u8 << (bit % 8));
        for content in [&mut inode.current, &mut inode.durable] {
            if let Some(octet) = content.get_mut(at) {
                *octet ^= mask;
            }
        }
        true
    }

    /// What a file holds, as a reader would see it.
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.inodes.get(state.names.get(path)?)?.current.clone())
    }

    /// All files, in order of their paths.
    pub fn files(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.change()?;
        state.must_have_parent(path)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.next_inode;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::default());
        state.names.insert(path.into(), inode);
        state.pending_names.push(NameChange::Link(path.into(), inode));
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state();
        state.running()?;
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        state.must_have_parent(to)?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.into(), inode);
        state.pending_names.push(NameChange::Rename(from.into(), to.into()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.pending_names.push(NameChange::Remove(path.into()));
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.running()?;
        state.dirs.extend(path.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let state = self.state();
        state.running()?;
        if !state.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let files = state.names.keys().map(|path| (path, false));
        let dirs = state.dirs.iter().map(|path| (path, true));
        let mut entries: Vec<Entry> = files
            .chain(dirs)
            .filter(|(path, _)| path.parent() == Some(dir))
            .filter_map(|(path, directory)| Some(Entry { name: path.file_name()?.to_str()?.to_owned(), directory }))
            .collect();
        entries.sort();
        Ok(entries)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.change()?;
        state.strike(Fault::SyncDir)?;
        for change in std::mem::take(&mut state.pending_names) {
            if change.touches(dir) {
                change.apply(&mut state.durable_names);
            } else {
                state.pending_names.push(change);
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    inode: u64,
}

impl DiskFile for SimFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.running()?;
        state.strike(Fault::Read)?;
        let content = &state.inode(self.inode)?.current;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let rest = content.get(from..).unwrap_or_default();
        let len = rest.len().min(into.len());
        copy(into, rest);
        Ok(len)
    }

    fn write_at(&self, octets: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let stopped = state.change();
        let struck = stopped.and_then(|()| state.strike(Fault::Write));
        let room = state.room();
        let inode = state.inode(self.inode)?;
        let allowed = inode.current.len() as u64 + room;
        let end = offset + octets.len() as u64;
        // A write into a full disk, a failing one or a dying machine writes what it can.
        let fitting = octets.len() - end.saturating_sub(allowed).min(octets.len() as u64) as usize;
        let octets = octets.get(..fitting).unwrap_or_default();
        inode.write(octets, offset);
        struck?;
        if end > allowed { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn write_vectored_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()> {
        let octets = parts.iter().map(|part| &**part).collect::<Vec<_>>().concat();
        self.write_at(&octets, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.change()?;
        let room = state.room();
        let inode = state.inode(self.inode)?;
        let more = len.saturating_sub(inode.current.len() as u64);
        if more > room {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if more > 0 {
            inode.set_len(len);
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.change()?;
        state.inode(self.inode)?.set_len(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.change()?;
        let struck = state.strike(Fault::Sync);
        if struck.is_err() {
            let content = state.content_after_crash(self.inode, Crash::Torn);
            state.inode(self.inode)?.durable = content;
        }
        let inode = state.inode(self.inode)?;
        let pending = std::mem::take(&mut inode.pending);
        struck?;
        for change in pending {
            change.apply(&mut inode.durable);
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.running()?;
        Ok(state.inode(self.inode)?.current.len() as u64)
    }
}

impl State {
    fn draw(&mut self) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn running(&self) -> io::Result<()> {
        match self.stop_at {
            Some(stop) if self.changes >= stop => Err(io::Error::other("the machine is off")),
            _ => Ok(()),
        }
    }

    fn change(&mut self) -> io::Result<()> {
        self.running()?;
        self.changes += 1;
        self.running()
    }

    fn strike(&mut self, fault: Fault) -> io::Result<()> {
        let Some(left) = self.faults.get_mut(&fault) else { return Ok(()) };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return Ok(());
        }
        self.faults.remove(&fault);
        Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()))
    }

    fn inode(&mut self, inode: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&inode).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn must_have_parent(&self, path: &Path) -> io::Result<()> {
        let known = path.parent().is_some_and(|dir| self.dirs.contains(dir));
        if known { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn used(&self) -> u64 {
        self.names.values().filter_map(|inode| self.inodes.get(inode)).map(|inode| inode.current.len() as u64).sum()
    }

    fn room(&self) -> u64 {
        self.capacity.map_or(u64::MAX / 2, |capacity| capacity.saturating_sub(self.used()))
    }

    fn names_after_crash(&mut self, how: Crash) -> BTreeMap<PathBuf, u64> {
        let mut names = self.durable_names.clone();
        let pending = std::mem::take(&mut self.pending_names);
        // A journaling file system keeps a prefix of what was asked; others may keep any part.
        let prefix = (!self.draw().is_multiple_of(4)).then(|| self.draw() % (pending.len() as u64 + 1));
        for (at, change) in pending.into_iter().enumerate() {
            let kept = match (how, prefix) {
                (Crash::LoseAll, _) => false,
                (Crash::KeepAll, _) => true,
                (Crash::Torn, Some(prefix)) => (at as u64) < prefix,
                (Crash::Torn, None) => self.draw().is_multiple_of(2),
            };
            if kept {
                change.apply(&mut names);
            }
        }
        names
    }

    fn content_after_crash(&mut self, inode: u64, how: Crash) -> Vec<u8> {
        let Some(inode) = self.inodes.get(&inode).cloned() else { return Vec::new() };
        match how {
            Crash::LoseAll => inode.durable,
            Crash::KeepAll => inode.current,
            Crash::Torn => {
                let lost_of_8 = self.draw() % 9;
                inode.torn(|| self.draw() % 8 < lost_of_8)
            }
        }
    }
}

impl Inode {
    fn write(&mut self, octets: &[u8], offset: u64) {
        let end = offset + octets.len() as u64;
        if end > self.current.len() as u64 {
            self.set_len(end);
        }
        let change = Change::Write { offset, octets: octets.to_vec() };
        change.apply(&mut self.current);
        self.pending.push(change);
    }

    fn set_len(&mut self, len: u64) {
        Change::Length(len).apply(&mut self.current);
        self.pending.push(Change::Length(len));
    }

    /// Each sector keeps some prefix of the writes made to it, the length some prefix of its changes.
    fn torn(self, mut lose: impl FnMut() -> bool) -> Vec<u8> {
        let mut content = self.durable;
        let mut lost_sectors = BTreeSet::new();
        let mut length_lost = false;
        for change in self.pending {
            match change {
                Change::Length(_) if length_lost => {}
                Change::Length(_) if lose() => length_lost = true,
                Change::Length(_) => change.apply(&mut content),
                Change::Write { offset, octets } => {
                    for (at, piece) in sectors(offset, &octets) {
                        let sector = at / SECTOR_BYTES;
                        if lost_sectors.contains(&sector) || lose() {
                            lost_sectors.insert(sector);
                        } else {
                            Change::Write { offset: at, octets: piece.to_vec() }.apply(&mut content);
                        }
                    }
                }
            }
        }
        content
    }
}

impl Change {
    /// Octets past the end are dropped: the length is changed before it is written to.
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Length(len) => content.resize(usize::try_from(*len).unwrap_or(usize::MAX), 0),
            Change::Write { offset, octets } => {
                let from = usize::try_from(*offset).unwrap_or(usize::MAX).min(content.len());
                copy(content.get_mut(from..).unwrap_or_default(), octets);
            }
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            NameChange::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
        }
    }

    fn touches(&self, dir: &Path) -> bool {
        let within = |path: &PathBuf| path.parent() == Some(dir);
        match self {
            NameChange::Link(path, _) | NameChange::Remove(path) => within(path),
            NameChange::Rename(from, to) => within(from) || within(to),
        }
    }
}

/// Copies as much as both have.
fn copy(to: &mut [u8], from: &[u8]) {
    let len = to.len().min(from.len());
    if let (Some(to), Some(from)) = (to.get_mut(..len), from.get(..len)) {
        to.copy_from_slice(from);
    }
}

/// Cuts a write where sectors end; each piece with its position in the file.
fn sectors(offset: u64, octets: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = offset;
    let mut rest = octets;
    std::iter::from_fn(move || {
        let len = (SECTOR_BYTES - at % SECTOR_BYTES).min(rest.len() as u64);
        let (piece, left) = rest.split_at_checked(len as usize)?;
        if piece.is_empty() {
            return None;
        }
        let found = (at, piece);
        at += len;
        rest = left;
        Some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: &str = "/d";

    fn disk() -> SimDisk {
        let disk = SimDisk::new(1);
        disk.create_dir(Path::new(DIR)).unwrap();
        disk
    }

    fn path(name: &str) -> PathBuf {
        Path::new(DIR).join(name)
    }

    #[test]
    fn only_what_was_synced_survives_a_power_cut() {
        let disk = disk();
        let file = disk.create(&path("a")).unwrap();
        file.write_at(b"kept", 0).unwrap();
        file.sync_data().unwrap();
        assert_eq!(disk.crash(Crash::LoseAll).files(), Vec::<PathBuf>::new(), "the name was not synced");
        let file = disk.create(&path("b")).unwrap();
        file.write_at(b"kept", 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
        file.write_at(b"lost", 2).unwrap();
        disk.rename(&path("b"), &path("c")).unwrap();
        let after = disk.crash(Crash::LoseAll);
        assert_eq!(after.content(&path("b")).unwrap(), b"kept");
        assert_eq!(after.content(&path("c")), None);
    }

    #[test]
    fn a_torn_write_keeps_whole_sectors_and_a_prefix_of_the_writes_to_each() {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            disk.create_dir(Path::new(DIR)).unwrap();
            let file = disk.create(&path("a")).unwrap();
            file.allocate(1536).unwrap();
            file.sync_data().unwrap();
            disk.sync_dir(Path::new(DIR)).unwrap();
            file.write_at(&[1; 1536], 0).unwrap();
            file.write_at(&[2; 600], 0).unwrap();
            let content = disk.crash(Crash::Torn).content(&path("a")).unwrap();
            for sector in [&content[..512], &content[1024..]] {
                assert!(sector.iter().all(|octet| *octet == sector[0]), "{seed}");
            }
            assert!(content[512] == content[599] && content[600] == content[1023]);
            assert!((content[512], content[600]) != (2, 0), "the second write without the first");
            seen.insert((content[0], content[512], content[1024]));
        }
        assert!(seen.len() > 8, "{seen:?}");
    }

    #[test]
    fn after_a_failed_sync_the_next_one_lies() {
        let disk = disk();
        let file = disk.create(&path("a")).unwrap();
        disk.sync_dir(Path::new(DIR)).unwrap();
        let mut lost = false;
        for round in 0..64 {
            let octets = vec![round + 1; 4096];
            file.write_at(&octets, 0).unwrap();
            disk.fail(Fault::Sync, 1);
            file.sync_data().unwrap_err();
            file.sync_data().unwrap();
            assert_eq!(disk.content(&path("a")).unwrap(), octets);
            lost |= disk.crash(Crash::LoseAll).content(&path("a")).unwrap() != octets;
        }
        assert!(lost);
    }

    #[test]
    fn a_full_disk_and_a_stopped_machine_fail_calls() {
        let disk = disk();
        disk.set_capacity(Some(1000));
        let file = disk.create(&path("a")).unwrap();
        file.allocate(900).unwrap();
        file.write_at(&[1; 900], 0).unwrap();
        assert_eq!(file.write_at(&[1; 200], 900).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.used(), 1000);
        assert_eq!(file.allocate(1001).unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.stop_at(disk.changes() + 2);
        file.write_at(&[2; 10], 0).unwrap();
        file.sync_data().unwrap_err();
        file.read_at(&mut [0], 0).unwrap_err();
        assert!(disk.flip(&path("a"), 8));
    }
}
