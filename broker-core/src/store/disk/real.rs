//! The disk as the kernel offers it. Positional reads and writes only; nothing is mapped, so a failing disk is an error and not a signal.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{Disk, DiskFile, Entry};

/// Most parts the kernel takes in one vectored write (IOV_MAX).
const PARTS_MAX: usize = 1024;
const FILE_MODE: Mode = Mode::from_raw_mode(0o640);

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        Ok(Box::new(RealFile(again(|| rustix::fs::open(path, flags, FILE_MODE))?)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        Ok(Box::new(RealFile(again(|| rustix::fs::open(path, flags, Mode::empty()))?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(again(|| rustix::fs::rename(from, to))?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Ok(again(|| rustix::fs::unlink(path))?)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let directory = entry.file_type()?.is_dir();
            entries.push(Entry { name: entry.file_name().to_string_lossy().into_owned(), directory });
        }
        entries.sort();
        Ok(entries)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = again(|| rustix::fs::open(dir, flags, Mode::empty()))?;
        Ok(again(|| rustix::fs::fsync(&dir))?)
    }
}

#[derive(Debug)]
struct RealFile(OwnedFd);

impl DiskFile for RealFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match again(|| rustix::io::pread(&self.0, &mut *rest, offset + done as u64))? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }

    fn write_at(&self, mut octets: &[u8], mut offset: u64) -> io::Result<()> {
        while !octets.is_empty() {
            let written = some(again(|| rustix::io::pwrite(&self.0, octets, offset))?)?;
            octets = octets.get(written..).unwrap_or_default();
            offset += written as u64;
        }
        Ok(())
    }

    fn write_vectored_at(&self, mut parts: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let first = parts.get(..PARTS_MAX).unwrap_or(parts);
            let written = some(again(|| rustix::io::pwritev(&self.0, first, offset))?)?;
            IoSlice::advance_slices(&mut parts, written);
            offset += written as u64;
        }
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match again(|| rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len)) {
            // A file system that cannot reserve (some network ones) still gets the length; the writes may then meet a full disk.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.extend(len),
            other => Ok(other?),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        Ok(again(|| rustix::fs::ftruncate(&self.0, len))?)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(again(|| rustix::fs::fdatasync(&self.0))?)
    }

    fn len(&self) -> io::Result<u64> {
        let stat = again(|| rustix::fs::fstat(&self.0))?;
        u64::try_from(stat.st_size).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    }
}

impl RealFile {
    fn extend(&self, len: u64) -> io::Result<()> {
        if self.len()? < len {
            self.truncate(len)?;
        }
        Ok(())
    }
}

/// Repeats a call that a signal interrupted before it did anything.
fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

/// A write that wrote nothing would be repeated for ever.
fn some(written: usize) -> io::Result<usize> {
    if written == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(written) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_across_open_and_rename() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, a, b) = (RealDisk, dir.path().join("a"), dir.path().join("b"));
        let file = disk.create(&a).unwrap();
        assert_eq!(disk.create(&a).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        file.allocate(100).unwrap();
        assert_eq!(file.len().unwrap(), 100);
        let long = vec![9_u8; 3000];
        let mut parts: Vec<IoSlice<'_>> = long.chunks(1).map(IoSlice::new).collect();
        parts.insert(0, IoSlice::new(b""));
        file.write_vectored_at(&mut parts, 10).unwrap();
        file.write_at(b"head", 0).unwrap();
        file.sync_data().unwrap();
        disk.rename(&a, &b).unwrap();
        disk.sync_dir(dir.path()).unwrap();
        let file = disk.open(&b).unwrap();
        let mut back = vec![0; 4000];
        assert_eq!(file.read_at(&mut back, 0).unwrap(), 3010);
        assert_eq!((&back[..4], &back[10..3010]), (&b"head"[..], &long[..]));
        file.truncate(4).unwrap();
        assert_eq!((file.len().unwrap(), file.is_empty().unwrap()), (4, false));
        disk.create_dir(&dir.path().join("x/y")).unwrap();
        let names: Vec<_> = disk.list(dir.path()).unwrap();
        let entry = |name: &str, directory| Entry { name: name.into(), directory };
        assert_eq!(names, [entry("b", false), entry("x", true)]);
        disk.remove(&b).unwrap();
        assert_eq!(disk.open(&b).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
