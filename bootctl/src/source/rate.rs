//! Whether a server sends fast enough to be stayed with. Pure.
//!
//! One that trickles never stalls, and each of its bytes is progress; without a least rate it would be read for ever.

use std::time::Duration;

/// Counts what arrives, and how long it is waited for.
#[derive(Debug)]
pub(super) struct Rate {
    /// Bytes a second.
    least: u64,
    over: Duration,
    waited: Duration,
    bytes: u64,
}

impl Rate {
    /// At least `least` bytes a second, judged each time that `over` has been waited.
    pub(super) fn new(least: u64, over: Duration) -> Self {
        Self {
            least,
            over,
            waited: Duration::ZERO,
            bytes: 0,
        }
    }

    /// Takes in what came of waiting so long. At the end of each stretch: whether it was fast enough, and if not, what
    /// is to be said.
    pub(super) fn take(&mut self, waited: Duration, bytes: u64) -> Option<Result<(), String>> {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < self.over {
            return None;
        }
        let seconds = self.waited.as_secs_f64();
        let fast_enough = self.bytes as f64 >= self.least as f64 * seconds;
        let bytes = std::mem::take(&mut self.bytes);
        self.waited = Duration::ZERO;
        Some(if fast_enough {
            Ok(())
        } else {
            Err(format!(
                "the server sends too slowly: {bytes} bytes in {seconds:.0} s, where {} bytes a second are the least",
                self.least
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_trickle_is_too_slow_and_a_slow_line_is_not() {
        for (bytes_a_second, fast_enough) in
            [(0, false), (999, false), (1000, true), (1 << 20, true)]
        {
            let mut rate = Rate::new(1000, 300 * S);
            for _ in 0..299 {
                assert_eq!(rate.take(S, bytes_a_second), None);
            }
            let judged = rate.take(S, bytes_a_second).unwrap();
            assert_eq!(judged.is_ok(), fast_enough, "{judged:?}");
        }
    }

    #[test]
    fn each_stretch_is_judged_by_itself() {
        let mut rate = Rate::new(1000, 300 * S);
        assert!(rate.take(300 * S, 1 << 30).unwrap().is_ok());
        assert_eq!(rate.take(299 * S, 0), None);
        let slow = rate.take(S, 40).unwrap().unwrap_err();
        assert!(slow.contains("40 bytes in 300 s"), "{slow}");
    }
}
