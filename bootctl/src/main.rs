//! The program: reads the command line, runs the command, reports.

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use serde_json::json;

use bootctl::cli::{Cli, Command};
use bootctl::commands;
use bootctl::failure::{Doing as _, Result};
use bootctl::machine::Machine;
use bootctl::machine::facts::boot_id;
use bootctl::os::clock::Pace;
use bootctl::os::paths::Paths;
use bootctl::output::{self, Outcome};
use bootctl::service;
use bootctl::state::shutdown_marker;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let as_json = cli.json;
    output::finish(run(cli), as_json)
}

fn run(cli: Cli) -> Result<Outcome> {
    let paths = Paths::new(&cli.root);
    let machine = || {
        let mut machine = Machine::read(&cli.root)?;
        machine.pace = Pace(cli.hurry);
        Result::Ok(machine)
    };
    match &cli.command {
        Command::Status => commands::status::status(&machine()?),
        Command::Install(arguments) => commands::install::install(&machine()?, arguments),
        Command::UpdateRecovery(arguments) => {
            commands::update_recovery::update_recovery(&machine()?, arguments)
        }
        Command::UpdateLoader(arguments) => {
            commands::update_loader::update_loader(&machine()?, arguments)
        }
        Command::Activate(arguments) => commands::activate::activate(&machine()?, arguments),
        Command::RepairSlot(arguments) => {
            commands::repair_slot::repair_slot(&machine()?, arguments)
        }
        Command::GiveUp(arguments) => commands::give_up::give_up(&machine()?, arguments),
        Command::MarkGood => commands::mark_good::mark_good(&machine()?),
        Command::Rollback(arguments) => commands::rollback::rollback(&machine()?, arguments),
        Command::History(arguments) => commands::history::history(&machine()?, arguments),
        Command::Health(arguments) => commands::health::health(&machine()?, arguments),
        Command::Reboot(arguments) => commands::reboot::reboot(&machine()?, arguments),
        Command::EraseState(arguments) => {
            commands::erase_state::erase_state(&machine()?, arguments)
        }
        Command::Profile(command) => {
            commands::profile::profile(&paths, command, cli.root == Path::new("/"))
        }
        Command::Time(command) => commands::time::time(&machine()?, command),
        Command::Serve => {
            service::serve(&machine()?)?;
            Ok(Outcome::new(String::new(), json!({})))
        }
        Command::Ended => {
            let marker = paths.state("running");
            shutdown_marker::unmark(&marker, &boot_id())
                .doing(|| format!("noting the end of this run in {}", marker.display()))?;
            Ok(Outcome::new(String::new(), json!({})))
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "bootctl", &mut script);
            let text = String::from_utf8_lossy(&script).into_owned();
            Ok(Outcome::new(text.clone(), json!({"completions": text})))
        }
        Command::Man { dir } => {
            std::fs::create_dir_all(dir).doing(|| format!("creating {}", dir.display()))?;
            clap_mangen::generate_to(Cli::command(), dir)
                .doing(|| format!("writing manual pages into {}", dir.display()))?;
            Ok(Outcome::new(String::new(), json!({"written": dir})))
        }
    }
}
