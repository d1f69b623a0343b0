//! A bundle that comes front to back: standard input, a FIFO.

use std::io::{ErrorKind, Read};

use super::{Source, too_short};
use crate::failure::{Failure, Result};

/// What is read over at a time.
const SKIP: usize = 64 * 1024;

/// What a reader gives, in order.
pub struct Pipe<R> {
    name: String,
    reader: R,
    at: u64,
}

impl<R: Read> Pipe<R> {
    /// `name` is for messages.
    pub fn new(name: &str, reader: R) -> Self {
        Self {
            name: name.to_owned(),
            reader,
            at: 0,
        }
    }

    fn fill(&mut self, wanted: u64, buf: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buf.len() {
            match self.reader.read(&mut buf[done..]) {
                Ok(0) => return Err(too_short(&self.name, wanted, buf.len(), self.at)),
                Ok(n) => {
                    done += n;
                    self.at += n as u64;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    return Err(Failure::source(format!(
                        "reading {} at {}: {e}",
                        self.name, self.at
                    )));
                }
            }
        }
        Ok(())
    }
}

impl<R: Read> Source for Pipe<R> {
    fn name(&self) -> &str {
        &self.name
    }

    fn size(&self) -> Option<u64> {
        None
    }

    fn read_exact_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let mut over = offset
            .checked_sub(self.at)
            .ok_or_else(|| Failure::failed(format!("{} cannot be read twice", self.name)))?;
        let mut skip = [0; SKIP];
        while over > 0 {
            let part = usize::try_from(over).unwrap_or(SKIP).min(SKIP);
            self.fill(offset, &mut skip[..part])?;
            over -= part as u64;
        }
        self.fill(offset, buf)
    }

    fn ends_at(&mut self, offset: u64) -> Result<bool> {
        if offset > self.at {
            let last = offset - 1;
            self.read_exact_at(last, &mut [0])?;
        }
        let mut one = [0];
        Ok(self.at == offset && self.reader.read(&mut one).is_ok_and(|n| n == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_forward_and_notices_both_ends() {
        let data: Vec<u8> = (0..200_000_u32).map(|i| i as u8).collect();
        let mut pipe = Pipe::new("test", &data[..]);
        let mut buf = [0; 4];
        pipe.read_exact_at(0, &mut buf).unwrap();
        pipe.read_exact_at(150_000, &mut buf).unwrap();
        assert_eq!(buf, data[150_000..150_004]);
        assert!(pipe.read_exact_at(10, &mut buf).is_err());
        assert!(pipe.ends_at(200_000).unwrap());
        let short = pipe.read_exact_at(200_000, &mut buf).unwrap_err();
        assert!(
            short.what.contains("ends after 200000 bytes"),
            "{}",
            short.what
        );
    }
}
