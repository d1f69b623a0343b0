//! PID 1 of the initramfs; see the library of this crate.

use std::process::ExitCode;

use initrd::state::e2fsck;
use initrd::{abort, agent};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments
        .next()
        .is_some_and(|first| first == e2fsck::IN_ROOT)
    {
        let error = e2fsck::exec_in_root(arguments);
        eprintln!("initrd: starting a program of the root filesystem: {error}");
        return ExitCode::from(127);
    }
    if !rustix::process::getpid().is_init() {
        eprintln!("initrd: this is PID 1 of Sternpost's initramfs; it does nothing anywhere else");
        return ExitCode::from(2);
    }
    std::panic::set_hook(Box::new(abort::panicked));
    match agent::run() {
        Ok(never) => match never {},
        Err(failure) => abort::end(&failure),
    }
}
