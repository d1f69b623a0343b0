//! The end of a start that failed: said on every console, noted in the event ring, restarted. Never halts.

use std::panic::PanicHookInfo;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use block_file::Access;
use boot_core::event::{Event, EventKind, Stage};
use boot_core::gpt::Table;
use boot_core::{Digest, Nonce, Target};
use rustix::system::{RebootCommand, reboot};

use crate::block;
use crate::boot_disk::with_boot_state;
use crate::console;
use crate::failure::Failure;

/// Time for a person, or a serial log, to read the line.
const PAUSE: Duration = Duration::from_secs(3);
/// Longest time to wait for a disk before the machine restarts without it.
const DISK_LIMIT: Duration = Duration::from_secs(10);

/// What is known of this start, as soon as it is.
#[derive(Debug, Default, Clone)]
pub struct Facts {
    /// The disk's name and table: where the event ring is.
    pub disk: Option<(String, Table)>,
    /// What was started.
    pub target: Option<Target>,
    /// Nonce of this start.
    pub nonce: Option<Nonce>,
    /// Digest of the manifest that was verified.
    pub digest: Option<Digest>,
}

static FACTS: Mutex<Option<Facts>> = Mutex::new(None);

/// Remembers what a failure needs to be recorded.
pub fn remember(change: impl FnOnce(&mut Facts)) {
    if let Ok(mut facts) = FACTS.lock() {
        change(facts.get_or_insert_default());
    }
}

/// Appends to the event ring of the disk that this start came from, if it is known by now. A disk that takes long over
/// it is not waited for: the watchdog runs.
pub fn record(kind: EventKind, text: &str) {
    let text = text.to_owned();
    within(DISK_LIMIT, move || append(kind, &text));
}

fn append(kind: EventKind, text: &str) {
    // Not `lock`: a panic may have happened while it was held.
    let Some(facts) = FACTS.try_lock().ok().and_then(|facts| facts.clone()) else {
        return;
    };
    let Some((name, table)) = &facts.disk else {
        return;
    };
    let mut event = Event::new(Stage::INITRD, kind, text);
    if let Some(target) = facts.target {
        event = event.about(target);
    }
    event.nonce = facts.nonce.unwrap_or(Nonce::ZERO);
    event.digest = facts.digest.unwrap_or(Digest::ZERO);
    event.time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|time| i64::try_from(time.as_secs()).ok())
        .unwrap_or(0);
    let outcome = block::open(name, Access::Shared).map(|mut device| {
        with_boot_state(&mut device, table, |ring| {
            ring.append_event(&event).map_err(|error| error.to_string())
        })
    });
    match outcome {
        Ok(Some(Ok(()))) => {}
        Ok(Some(Err(error))) => console::log(format_args!(
            "the event ring of /dev/{name} could not be written: {error}"
        )),
        Ok(None) => console::log(format_args!("/dev/{name} has no event ring")),
        Err(failure) => console::log(failure.reason()),
    }
}

/// Says it, notes it, restarts.
pub fn end(failure: &Failure) -> ! {
    console::announce(format_args!("start failed: {failure}"));
    record(EventKind::INITRD_FAILED, &failure.reason());
    restart()
}

/// What a panic ends in.
pub fn panicked(info: &PanicHookInfo<'_>) {
    end(&Failure::new(
        "running",
        "the initrd agent",
        info.to_string(),
    ))
}

/// Does `work`, and waits for it no longer than `limit`: a disk that does not answer must not keep the machine from
/// restarting.
fn within(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let (working, done) = mpsc::channel::<()>();
    let beside = thread::Builder::new().spawn(move || {
        work();
        drop(working);
    });
    if beside.is_ok() {
        // Ends when the other half is dropped.
        let _ = done.recv_timeout(limit);
    }
}

fn restart() -> ! {
    thread::sleep(PAUSE);
    within(DISK_LIMIT, rustix::fs::sync);
    if let Err(error) = reboot(RebootCommand::Restart) {
        console::announce(format_args!(
            "the kernel refuses to restart ({error}); ending PID 1, which panics it, which restarts it"
        ));
    }
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_disk_that_does_not_answer_is_not_waited_for() {
        let before = Instant::now();
        within(Duration::from_millis(20), || {
            thread::sleep(Duration::from_secs(5));
        });
        within(Duration::from_secs(60), || ());
        assert!(before.elapsed() < Duration::from_secs(4));
    }
}
