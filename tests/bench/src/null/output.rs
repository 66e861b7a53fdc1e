//! What the null broker still has to write to one connection.

use std::io::{self, IoSlice, Write};

/// The octets that wait for one socket, and the socket's state.
#[derive(Debug, Default)]
pub struct Output {
    octets: Vec<u8>,
    start: usize,
    /// Whether epoll called the socket writable since it was last full.
    pub writable: bool,
    /// Whether it stands in the list of outputs to flush.
    pub dirty: bool,
    /// Whether more waits than a publisher may add to.
    pub congested: bool,
}

impl Output {
    /// Octets that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.octets.len() - self.start
    }

    /// Where to append.
    pub fn octets_mut(&mut self) -> &mut Vec<u8> {
        &mut self.octets
    }

    /// Writes what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// When the socket is closed.
    pub fn flush(&mut self, stream: &mut impl Write) -> io::Result<()> {
        while self.writable && self.waiting() > 0 {
            let count = self.octets.len() - self.start;
            match stream.write(self.octets.get(self.start..).unwrap_or_default()) {
                Ok(taken) => {
                    self.start += taken;
                    self.writable = taken == count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error),
            }
        }
        self.forget_written();
        Ok(())
    }

    /// Writes what waits and then `last`, which is copied only as far as the socket does not take it.
    ///
    /// # Errors
    /// When the socket is closed.
    pub fn write_through(&mut self, stream: &mut impl Write, last: &[u8]) -> io::Result<()> {
        let mut taken = 0;
        if self.writable {
            let waiting = self.octets.get(self.start..).unwrap_or_default();
            let all = waiting.len() + last.len();
            match stream.write_vectored(&[IoSlice::new(waiting), IoSlice::new(last)]) {
                Ok(count) => {
                    taken = count.saturating_sub(waiting.len());
                    self.start += count.min(waiting.len());
                    self.writable = count == all;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error),
            }
        }
        self.forget_written();
        self.octets.extend_from_slice(last.get(taken..).unwrap_or_default());
        Ok(())
    }

    fn forget_written(&mut self) {
        if self.start == self.octets.len() {
            self.octets.clear();
            self.start = 0;
        } else if self.start > self.octets.len() / 2 {
            self.octets.drain(..self.start);
            self.start = 0;
        }
    }
}
