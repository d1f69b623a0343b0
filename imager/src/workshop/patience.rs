//! Waiting that says so: for what is usually over at once, and may take minutes.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How long nothing is said.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// Does `work`, which waits, and has `say` said once if that takes longer than `patience`.
pub(crate) fn wait<T>(
    patience: Duration,
    say: impl FnOnce() + Send + 'static,
    work: impl FnOnce() -> T,
) -> T {
    let (waiting, done) = mpsc::channel::<()>();
    thread::spawn(move || {
        // Ends at once when the other half is dropped.
        if done.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
            say();
        }
    });
    let waited = work();
    drop(waiting);
    waited
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_said_once_it_takes_long() {
        let (say, said) = mpsc::channel();
        let word = move || say.send("waiting").unwrap();
        // What is waited for comes after the word.
        let heard = wait(Duration::from_millis(1), word, || {
            said.recv_timeout(Duration::from_secs(60))
        });
        assert_eq!(heard, Ok("waiting"));
        let unsaid = || panic!("it was over at once");
        assert_eq!(wait(Duration::from_secs(3600), unsaid, || 7), 7);
    }
}
