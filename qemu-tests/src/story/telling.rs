//! How the story is told: one line a step with its time, and what commands inside the machine print.

use std::io::Write as _;
use std::time::Instant;

use anyhow::Result;

use crate::machine::Machine;

/// One line: what is done, and how long it took.
pub(super) fn step<T>(what: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    print!("   {what:<56} ");
    let _ = std::io::stdout().flush();
    let began = Instant::now();
    let result = action();
    let seconds = began.elapsed().as_secs_f64();
    match &result {
        Ok(_) => println!("{seconds:7.1} s"),
        Err(_) => println!("failed after {seconds:.1} s"),
    }
    result.map_err(|error| error.context(what.to_owned()))
}

/// The line of a step that showed its own progress.
pub(super) fn done(what: &str, began: Instant) {
    println!("   {what:<56} {:7.1} s", began.elapsed().as_secs_f64());
}

/// A fact below the step that it belongs to.
pub(super) fn said(text: &str) {
    println!("     {text}");
}

pub(super) fn show(machine: &mut Machine<'_>, command: &str) -> Result<()> {
    let text = machine.run(command)?;
    println!("\n     # {command}");
    print_inside(&text);
    println!();
    Ok(())
}

pub(super) fn print_inside(text: &str) {
    for line in text.trim_end().lines() {
        println!("     {line}");
    }
}
