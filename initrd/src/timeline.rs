//! How long each step took.

use std::collections::BTreeMap;

use rustix::time::{ClockId, clock_gettime};

/// Microseconds since the kernel started.
#[must_use]
pub fn now_us() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_nsec).unwrap_or(0) / 1000;
    seconds.saturating_mul(1_000_000).saturating_add(micros)
}

/// Moments by name, in order, in microseconds since the kernel started.
#[derive(Debug, Default)]
pub struct Timeline {
    marks: Vec<(&'static str, u64)>,
}

impl Timeline {
    /// Starts with `agent_start_us`.
    #[must_use]
    pub fn start() -> Self {
        Self {
            marks: vec![("agent_start_us", now_us())],
        }
    }

    /// Notes that a step has ended.
    pub fn mark(&mut self, name: &'static str) {
        self.marks.push((name, now_us()));
    }

    /// For the report.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, u64> {
        let marks = self.marks.iter();
        marks.map(|(name, at)| ((*name).to_owned(), *at)).collect()
    }

    /// One line: the whole, then each step, in milliseconds.
    #[must_use]
    pub fn summary(&self) -> String {
        let first = self.marks.first().map_or(0, |mark| mark.1);
        let last = self.marks.last().map_or(0, |mark| mark.1);
        let steps: Vec<String> = self
            .marks
            .windows(2)
            .filter_map(|pair| match pair {
                [(_, from), (name, to)] => Some(format!(
                    "{} {}",
                    name.trim_end_matches("_us"),
                    (to - from) / 1000
                )),
                _ => None,
            })
            .collect();
        format!(
            "{} ms to switch-root ({})",
            (last - first) / 1000,
            steps.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_gives_differences() {
        let line = Timeline {
            marks: vec![
                ("agent_start_us", 1000),
                ("mounts_us", 13_000),
                ("root_us", 20_999),
            ],
        };
        assert_eq!(line.summary(), "19 ms to switch-root (mounts 12, root 7)");
    }
}
