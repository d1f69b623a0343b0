//! How far it has come: a bar with rate and remaining time on a terminal, a plain line every few
//! seconds elsewhere. All of it on standard error, so that `--json` has standard output to itself.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a plain line is written.
const EVERY: Duration = Duration::from_secs(5);

/// Shows progress; clones show the same.
#[derive(Clone)]
pub struct Progress {
    shown: Arc<Mutex<Shown>>,
}

enum Shown {
    Nothing,
    Plain {
        what: String,
        total: u64,
        done: u64,
        since: Instant,
        last: Instant,
    },
    Bar(ProgressBar),
}

impl Progress {
    /// For a person: a bar on a terminal, lines elsewhere.
    pub fn new() -> Self {
        let shown = if std::io::stderr().is_terminal() {
            Shown::Bar(ProgressBar::hidden())
        } else {
            Shown::Plain {
                what: String::new(),
                total: 0,
                done: 0,
                since: Instant::now(),
                last: Instant::now(),
            }
        };
        Self {
            shown: Arc::new(Mutex::new(shown)),
        }
    }

    /// Shows nothing.
    pub fn silent() -> Self {
        Self {
            shown: Arc::new(Mutex::new(Shown::Nothing)),
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Shown) -> R) -> R {
        f(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins a stretch of `total` bytes.
    pub fn begin(&self, name: &str, bytes: u64) {
        self.with(|shown| match shown {
            Shown::Nothing => {}
            Shown::Plain { what, total, done, since, last } => {
                eprintln!("{name}: {}", HumanBytes(bytes));
                *what = name.to_owned();
                *total = bytes;
                *done = 0;
                *since = Instant::now();
                *last = *since;
            }
            Shown::Bar(bar) => {
                bar.finish_and_clear();
                let new = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
                if let Ok(style) = ProgressStyle::with_template(
                    "{msg:12} {bar:30} {bytes:>11} / {total_bytes:11} {bytes_per_sec:>13} {eta:>4} left",
                ) {
                    new.set_style(style);
                }
                new.set_message(name.to_owned());
                *bar = new;
            }
        });
    }

    /// `bytes` more are done.
    pub fn add(&self, bytes: u64) {
        self.with(|shown| match shown {
            Shown::Nothing => {}
            Shown::Plain {
                what,
                total,
                done,
                since,
                last,
            } => {
                *done += bytes;
                if last.elapsed() >= EVERY {
                    *last = Instant::now();
                    let seconds = since.elapsed().as_secs_f64().max(0.001);
                    let rate = *done as f64 / seconds;
                    let left = (total.saturating_sub(*done)) as f64 / rate.max(1.0);
                    eprintln!(
                        "{what}: {} of {} ({} %), {}/s, {} left",
                        HumanBytes(*done),
                        HumanBytes(*total),
                        done.saturating_mul(100).checked_div(*total).unwrap_or(100),
                        HumanBytes(rate as u64),
                        HumanDuration(Duration::from_secs_f64(left)),
                    );
                }
            }
            Shown::Bar(bar) => bar.inc(bytes),
        });
    }

    /// The stretch is over.
    pub fn end(&self) {
        self.with(|shown| {
            if let Shown::Bar(bar) = shown {
                bar.finish_and_clear();
            }
        });
    }

    /// One line of text.
    pub fn note(&self, text: &str) {
        self.with(|shown| match shown {
            Shown::Nothing => {}
            Shown::Plain { .. } => eprintln!("{text}"),
            Shown::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
        });
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
