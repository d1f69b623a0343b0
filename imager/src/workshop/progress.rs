//! What a person sees of a build: a bar for each step on a terminal, plain lines elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::sources::address::shown_in;

/// Shows what a build does: bars on a terminal, plain lines elsewhere. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Progress {
    output: Output,
}

#[derive(Clone, Debug)]
enum Output {
    Terminal(MultiProgress),
    Lines,
    Hidden,
}

impl Progress {
    /// On standard error.
    pub fn new() -> Self {
        let output = if std::io::stderr().is_terminal() {
            Output::Terminal(MultiProgress::new())
        } else {
            Output::Lines
        };
        Self { output }
    }

    /// Shows no steps (`--quiet`, tests); what is more than progress is said all the same.
    pub fn hidden() -> Self {
        Self {
            output: Output::Hidden,
        }
    }

    /// Begins a step; dropping it without [`Step::done`] takes it off the screen.
    pub fn start(&self, what: &str) -> Step {
        let what = shown_in(what);
        let bar = match &self.output {
            Output::Terminal(all) => {
                let bar = all.add(ProgressBar::new_spinner());
                bar.set_style(style("{spinner} {prefix} {wide_msg} {elapsed}"));
                bar.set_prefix(what.clone());
                bar.enable_steady_tick(Duration::from_millis(120));
                Some(bar)
            }
            Output::Lines => {
                say(&format!("  … {what}"));
                None
            }
            Output::Hidden => None,
        };
        Step {
            progress: self.clone(),
            what,
            started: Instant::now(),
            bar,
        }
    }

    /// A line of text above the bars: what somebody should know who wants to see no progress, too, such as
    /// what is waited for.
    pub fn line(&self, text: &str) {
        let text = &shown_in(text);
        match &self.output {
            Output::Terminal(all) => {
                // A terminal that cannot be written to has nobody who would miss the line.
                let _ = all.println(text);
            }
            Output::Lines | Output::Hidden => say(text),
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// One step that is under way.
#[derive(Debug)]
pub struct Step {
    progress: Progress,
    what: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// How much there is to do, in bytes: turns the line into a bar.
    pub fn total(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(bytes);
            bar.set_style(style(
                "{spinner} {prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
            ));
        }
    }

    /// That much more is done.
    pub fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    pub fn note(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(shown_in(text));
        }
    }

    /// Finished: shows how long it took.
    pub fn done(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.started.elapsed().as_secs_f64();
        if !matches!(self.progress.output, Output::Hidden) {
            self.progress
                .line(&format!("  ✓ {} ({seconds:.1} s)", self.what));
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line on standard error, if there is still somebody who reads it.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
