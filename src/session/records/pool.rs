//! Buffers for records, kept by the process and lent to the directions that have something under way. An idle session holds none.

use crate::secret::wipe;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Bytes of a buffer. Eight records of the usual size, or one of the largest and half a buffer more.
pub(super) const SIZE: usize = 128 * 1024;

/// Buffers that are kept: 8 MiB. More than that are lent when more directions are busy, and freed afterwards.
const KEPT: usize = 64;

static POOL: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// A lent buffer of [`SIZE`] bytes. Goes back when dropped.
pub(super) struct Buffer {
    pub(super) bytes: Box<[u8]>,
    /// Where plaintext is, or may be: this is wiped when the buffer goes back. Whoever puts plaintext in says so here.
    pub(super) plain: Range<usize>,
}

impl Buffer {
    /// One of the pool, or a new one. It may still hold another session's ciphertext.
    pub(super) fn take() -> Self {
        let kept = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self { bytes: kept.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()), plain: 0..0 }
    }

    fn wipe(&mut self) {
        wipe(&mut self.bytes[self.plain.clone()]);
        self.plain = 0..0;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.wipe();
        let bytes = std::mem::take(&mut self.bytes);
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < KEPT {
            pool.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_is_wiped() {
        let mut buffer = Buffer::take();
        buffer.bytes.fill(7);
        buffer.plain = 100..SIZE;
        buffer.wipe();
        assert!(buffer.bytes[..100].iter().all(|byte| *byte == 7) && buffer.bytes[100..].iter().all(|byte| *byte == 0));
        buffer.bytes.fill(0);
    }
}
