//! What can go wrong with the store, by what the driver must do about it.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the store. Each variant says what holds after it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A write or sync failed: what is on the disk is unknown. Nothing more may be confirmed; the process must end, and recovery reads what is
    /// really there. The call must not be repeated.
    #[error("{}: cannot {doing} at offset {offset}: {source}", file.display())]
    Fatal {
        /// What was attempted, as in "write".
        doing: &'static str,
        /// The file or directory.
        file: PathBuf,
        /// Octets from the file's start.
        offset: u64,
        /// The system's answer.
        source: io::Error,
    },
    /// The disk is full. Nothing was half done: the same call may be made again later.
    #[error("{}: no space for {octets} more octets", file.display())]
    Full {
        /// The file or directory that could not grow.
        file: PathBuf,
        /// How much was asked for.
        octets: u64,
    },
    /// A read failed. What was asked for cannot be served; everything else can.
    #[error("{}: cannot read at offset {offset}: {source}", file.display())]
    Read {
        /// The file or directory.
        file: PathBuf,
        /// Octets from the file's start.
        offset: u64,
        /// The system's answer.
        source: io::Error,
    },
    /// The run or file is not known to the store: a mistake of the caller.
    #[error("{0} is not in the store")]
    Unknown(String),
}

impl StoreError {
    pub(crate) fn read(file: &Path, offset: u64) -> impl FnOnce(io::Error) -> StoreError {
        move |source| StoreError::Read { file: file.into(), offset, source }
    }

    pub(crate) fn fatal(doing: &'static str, file: &Path, offset: u64) -> impl FnOnce(io::Error) -> StoreError {
        move |source| StoreError::Fatal { doing, file: file.into(), offset, source }
    }

    /// For calls that reserve or extend: a full disk is not fatal there.
    pub(crate) fn space(doing: &'static str, file: &Path, octets: u64) -> impl FnOnce(io::Error) -> StoreError {
        move |source| {
            if is_full(&source) {
                StoreError::Full { file: file.into(), octets }
            } else {
                StoreError::Fatal { doing, file: file.into(), offset: octets, source }
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
