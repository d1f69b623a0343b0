//! The command line: what can be said, and the help that teaches it. The arguments of a command are in its own file.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::activate::Activate;
use crate::commands::erase_state::EraseState;
use crate::commands::give_up::GiveUp;
use crate::commands::health::Health;
use crate::commands::history::History;
use crate::commands::install::Install;
use crate::commands::profile::Profile;
use crate::commands::reboot::Reboot;
use crate::commands::repair_slot::RepairSlot;
use crate::commands::rollback::Rollback;
use crate::commands::time::Time;
use crate::commands::update_loader::UpdateLoader;
use crate::commands::update_recovery::UpdateRecovery;

const AFTER: &str = "\
Examples:
  bootctl status                                   what runs, why, and what to do about it
  bootctl install http://10.0.2.2/bundle.spb       write an upgrade into the other slot
  bootctl install --now /media/usb/bundle.spb      the same from a stick, then start it
  bootctl rollback                                 back to the slot before
  bootctl update-loader http://10.0.2.2/loader.spb a new loader, on one ESP after the other
  bootctl history                                  what happened and why

Exit codes:
  0  done                      5  source: network, server, file or pipe
  1  failed                    6  does not fit into the slot
  2  wrong command line        7  another bootctl is at work
  3  refused by a rule         8  not started by Sternpost
  4  verification failed       9  the profile is not valid";

/// Shows and changes what an appliance boots.
///
/// The machine has two slots, A and B. One is booted; an upgrade goes into the other. It is started
/// with a limited number of tries, watched by the health gate, and either marked good or given up:
/// then the machine is back in the slot before, by itself.
#[derive(Debug, Parser)]
#[command(name = "bootctl", version, after_help = AFTER, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    /// One JSON object on standard output instead of text
    #[arg(long, global = true)]
    pub json: bool,

    /// Take DIR for the root of the machine (for tests)
    #[arg(
        long,
        global = true,
        hide = true,
        value_name = "DIR",
        default_value = "/"
    )]
    pub root: PathBuf,

    /// Divide by N what is waited for (for tests)
    #[arg(
        long,
        global = true,
        hide = true,
        value_name = "N",
        default_value_t = 1
    )]
    pub hurry: u32,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the slots, what is booted and why, and what to do if something is wrong
    ///
    /// Reads only. Ends with 0 whatever the state is; `health` is for scripts that branch.
    #[command(after_help = "\
Examples:
  bootctl status
  bootctl status --json | jq -r .booted.slot")]
    Status,

    /// Write a bundle into the slot that is not booted
    ///
    /// Checks signature, product, architecture, layout, security floor, expiry, quarantine and sizes
    /// before anything is written, then each chunk before it is written, then reads all of it back
    /// from the disk. The bundle is fetched in chunks of 4 MiB; one of which every block is in this
    /// slot or in the other one is not fetched (of the other root the first 2 GiB are looked at). Run
    /// it again after any interruption: it goes on where it stopped. Without --now the slot is staged:
    /// it is not started until `bootctl activate`.
    #[command(after_help = "\
Examples:
  bootctl install http://10.0.2.2:8000/bundle.spb
  bootctl install --now https://updates.example.org/edge/bundle.spb
  bootctl install /media/usb/bundle.spb
  ssh operator@site bootctl install - < bundle.spb

Refused (3) while the booted slot is not marked good, unless the other slot cannot start anyway, and
for a bundle in quarantine (--force releases it).")]
    Install(Install),

    /// Start the staged slot at the next reboot
    ///
    /// Gives the slot that is not booted three tries. The booted slot stays what the machine falls
    /// back to.
    #[command(after_help = "\
Examples:
  bootctl activate && bootctl reboot
  bootctl activate --now")]
    Activate(Activate),

    /// Mark the booted slot good, without waiting for the health gate
    #[command(after_help = "\
Examples:
  bootctl mark-good

The health gate of `bootctl serve` does this by itself. By hand it is for machines whose profile
watches nothing, and for a slot that is good in spite of what the gate says.")]
    MarkGood,

    /// Go back to the other slot
    ///
    /// The other slot has to be good, and to verify. A booted slot on trial becomes unproven: `activate`
    /// tries it again. A booted slot that is good stays good, the other one is preferred.
    #[command(after_help = "\
Examples:
  bootctl rollback --now
  bootctl rollback --reason \"cameras lost\"")]
    Rollback(Rollback),

    /// Write a damaged slot anew from the other one
    ///
    /// Reads every byte of both first. The other slot has to be whole, this one damaged; what is whole is
    /// not overwritten. Copied like an installation: each block verified before it is written, all of it
    /// read back, the slot header last. The slot is staged then: it becomes good by running.
    #[command(after_help = "\
Examples:
  bootctl repair-slot                    the slot that is not booted, from the one that is
  bootctl repair-slot --now              and start it
  bootctl repair-slot --slot b           in recovery: slot B, from slot A")]
    RepairSlot(RepairSlot),

    /// Give up a slot that the record lets start although it is damaged
    ///
    /// A slot that could still start is not overwritten while the other one is not good. One that only
    /// the record calls good, because its disk has rotted, is in the way then: every byte of it is read,
    /// and if one is not what was signed, the slot is given up. Its version does not go into quarantine.
    #[command(after_help = "\
Examples:
  bootctl give-up --slot a && bootctl install --slot a --now http://10.0.2.2:8000/bundle.spb

Refused (3) for a slot that is whole.")]
    GiveUp(GiveUp),

    /// Replace the recovery system
    ///
    /// Only while both slots are good and verify: until it is whole again there is no recovery. Checked
    /// and written like a slot, its header last. Run it again after any interruption.
    #[command(after_help = "\
Examples:
  bootctl update-recovery http://10.0.2.2:8000/recovery.spb
  bootctl reboot --recovery              and try it

Refused (3) unless both slots are good, and in recovery itself.")]
    UpdateRecovery(UpdateRecovery),

    /// Update the loader, on one EFI system partition after the other
    ///
    /// The machine has two ESPs with the same loader. The one that it was not started from is written
    /// anew and started next, once. If that start ends in a good slot, `bootctl serve` copies the new
    /// loader to the other ESP. If not, the machine has come back from the old loader by itself:
    /// `history` says why, and both ESPs hold the old one again.
    ///
    /// Checks signature, product, architecture, layout, security floor and expiry like `install`, and
    /// that the new loader trusts whatever in the slots starts now, before anything is written.
    #[command(after_help = "\
Examples:
  bootctl update-loader --now http://10.0.2.2:8000/loader.spb
  bootctl update-loader /media/usb/loader.spb && bootctl reboot
  bootctl update-loader --copy           after an ESP was damaged: write it from the other one

Refused (3) while the booted slot is not marked good, in recovery, and if the new loader's root keys
do not verify a slot that starts now.")]
    UpdateLoader(UpdateLoader),

    /// Show what happened: starts, installs, verdicts, with reasons, and what is in quarantine
    #[command(after_help = "\
Examples:
  bootctl history
  bootctl history --limit 100
  bootctl history --json | jq '.events[] | select(.kind == \"given-up\")'")]
    History(History),

    /// Show what the health gate sees; ends with 0 only if the machine is healthy
    #[command(after_help = "\
Examples:
  bootctl health
  bootctl health --wait 300 && echo healthy")]
    Health(Health),

    /// Reboot in an orderly way
    #[command(after_help = "\
Examples:
  bootctl reboot
  bootctl reboot --recovery      start the recovery system once")]
    Reboot(Reboot),

    /// Make a state filesystem that is damaged beyond repair anew, empty
    ///
    /// Everything that the machine kept is lost: Kubernetes and its volumes, homes, logs, the machine's
    /// own profile and its id. Refused while `state` is in use: `bootctl status` says what is wrong with
    /// it.
    #[command(after_help = "\
Examples:
  bootctl erase-state && bootctl reboot")]
    EraseState(EraseState),

    /// Check, show and apply profiles: what this machine is to be
    #[command(subcommand)]
    Profile(Profile),

    /// Say the time, where neither a time server nor the hardware clock does
    #[command(subcommand)]
    Time(Time),

    /// The service: brings the machine up, watches its health, marks the slot good or goes back
    ///
    /// Started by sternpost.service. There is one of it.
    Serve,

    /// Note that this run has ended in an orderly way: sternpost-ended.service, last of all
    #[command(hide = true)]
    Ended,

    /// Write completions for a shell to standard output
    #[command(after_help = "\
Examples:
  bootctl completions bash > /usr/share/bash-completion/completions/bootctl")]
    Completions {
        /// Which shell
        shell: Shell,
    },

    /// Write manual pages into a directory
    #[command(hide = true)]
    Man {
        /// Where to
        dir: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_exit_code_is_in_the_help() {
        for (code, _) in crate::failure::CODES {
            assert!(AFTER.contains(&format!("{}  ", code as u8)), "{code:?}");
        }
    }
}
