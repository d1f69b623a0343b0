//! PID 1 of the initramfs; see the library of this crate.

use std::ffi::OsStr;
use std::process::ExitCode;

use initrd::state::e2fsck;
use initrd::{abort, agent};

/// What this program is started for.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    /// As PID 1.
    Agent,
    /// By the agent, to become another program inside a root.
    InRoot,
    /// By somebody else.
    Stranger,
}

/// PID 1 is the agent whatever its arguments are: the kernel hands it every word of its command line that it does not
/// know itself.
fn role(is_init: bool, first: Option<&OsStr>) -> Role {
    match first {
        _ if is_init => Role::Agent,
        Some(first) if first == e2fsck::IN_ROOT => Role::InRoot,
        _ => Role::Stranger,
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let is_init = rustix::process::getpid().is_init();
    match role(is_init, arguments.next().as_deref()) {
        Role::Agent => {
            std::panic::set_hook(Box::new(abort::panicked));
            match agent::run() {
                Ok(never) => match never {},
                Err(failure) => abort::end(&failure),
            }
        }
        Role::InRoot => {
            let error = e2fsck::exec_in_root(arguments);
            eprintln!("initrd: starting a program of the root filesystem: {error}");
            ExitCode::from(127)
        }
        Role::Stranger => {
            eprintln!(
                "initrd: this is PID 1 of Sternpost's initramfs; it does nothing anywhere else"
            );
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_1_is_the_agent_whatever_the_command_line_says() {
        let first = |word: &'static str| Some(OsStr::new(word));
        assert_eq!(role(true, first("--in-root")), Role::Agent);
        assert_eq!(role(true, None), Role::Agent);
        assert_eq!(role(false, first("--in-root")), Role::InRoot);
        assert_eq!(role(false, first("quiet")), Role::Stranger);
        assert_eq!(role(false, None), Role::Stranger);
    }
}
