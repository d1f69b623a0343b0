//! An appliance's life: first boot, an upgrade, an upgrade that the health gate refuses.
//!
//! `make demo` tells it to people; scenarios tell it to see that it is still true.

mod telling;
mod workload;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::artefacts::{Image, Version};
use crate::disk::Disk;
use crate::machine::{Machine, Options};
use crate::scenario::Context;
use crate::server::Server;
use crate::steps::REBOOT;
use telling::{done, print_inside, said, show, step};
use workload::{KUBECTL, Workload};

/// The disk of the machine: larger than the image, as disks are.
const DISK_SIZE: u64 = 16 << 30;

/// A story about the image of one recipe.
pub struct Story<'c> {
    context: &'c Context,
    workload: Workload,
}

impl<'c> Story<'c> {
    /// About the recipe and the architecture of `context`.
    #[must_use]
    pub fn new(context: &'c Context) -> Story<'c> {
        Story {
            context,
            workload: Workload::of_recipe(context.scenario().recipe),
        }
    }

    /// MiB of memory that the machine has.
    #[must_use]
    pub fn memory(&self) -> u32 {
        self.workload.memory()
    }

    /// What to look at in the machine.
    #[must_use]
    pub fn command(&self) -> String {
        match self.workload {
            Workload::Deployment => format!("sudo {KUBECTL} get nodes,pods -A"),
            Workload::Service => "sudo bootctl status".into(),
        }
    }

    /// Plays it; gives the machine's disk as it is left, with version 2 in it.
    ///
    /// # Errors
    /// Something does not go as told.
    pub fn tell(&self) -> Result<Disk> {
        println!("\n1  Keys and three images");
        self.build(Version::First)?;
        let second = self.build(Version::Second)?;
        let third = self.build(Version::Unhealthy)?;

        println!("\n2  Version 1 boots from its disk image");
        let disk = self.context.first_disk()?;
        disk.grow(DISK_SIZE)?;
        let mut machine = self.first_boot(&disk)?;
        let architecture = self.context.scenario().architecture;
        let wrote = self.workload.start(&mut machine, architecture)?;

        println!("\n3  Version 2 is installed from an HTTP server");
        self.upgrade(&mut machine, &second)?;
        self.workload.check(&mut machine, &wrote)?;

        println!("\n4  Version 3 is refused by the health gate");
        self.refuse(&mut machine, &third)?;
        self.workload.check(&mut machine, &wrote)?;

        step("switch the machine off", || machine.power_off())?;
        Ok(disk)
    }

    /// The image of one version; keys are made with the first.
    fn build(&self, version: Version) -> Result<Image> {
        let began = Instant::now();
        let image = self.context.image(version)?;
        done(&format!("image {}", version.number()), began);
        if let Ok(bundle) = std::fs::metadata(image.bundle()) {
            said(&format!("bundle {:.1} MB", bundle.len() as f64 / 1e6));
        }
        Ok(image)
    }

    fn first_boot(&self, disk: &Disk) -> Result<Machine<'c>> {
        let options = Options {
            memory: self.workload.memory(),
            ..Options::default()
        };
        let mut machine = step("firmware to loader", || {
            let mut machine = self.context.start(&[disk], options)?;
            machine.wait_for_boot(machine.boot_limit())?;
            Ok(machine)
        })?;
        self.wait_until_good(&mut machine, Version::First)?;
        Ok(machine)
    }

    /// From the loader's first line to the verdict of the health gate.
    fn wait_until_good(&self, machine: &mut Machine<'_>, version: Version) -> Result<()> {
        let status = step(&format!("{}, marked good", self.workload.well()), || {
            machine.wait_for_verdict(version.number(), self.workload.limit())?;
            machine.status_of(version.number())
        })?;
        if let Some(milliseconds) = status["health"]["verdict_ms"].as_u64() {
            said(&format!(
                "{} s after the kernel's start",
                milliseconds / 1000
            ));
        }
        self.workload.show(machine)
    }

    fn upgrade(&self, machine: &mut Machine<'_>, second: &Image) -> Result<()> {
        let server = Server::start(second.directory())?;
        self.install_now(machine, &server.url("bundle.spb"))?;
        said(&format!(
            "{:.1} MB were fetched",
            server.sent() as f64 / 1e6
        ));
        self.wait_until_good(machine, Version::Second)
    }

    /// Installs, activates and reboots; ends when the loader has started again.
    fn install_now(&self, machine: &mut Machine<'_>, url: &str) -> Result<()> {
        step(&format!("bootctl install --now {url}"), || {
            machine.install_now(url)
        })
    }

    fn refuse(&self, machine: &mut Machine<'_>, third: &Image) -> Result<()> {
        let server = Server::start(third.directory())?;
        let url = server.url("bundle.spb");
        self.install_now(machine, &url)?;
        step("version 3 starts, is found unhealthy and given up", || {
            machine.wait_for_boot(self.workload.limit() + REBOOT)
        })?;
        self.wait_until_good(machine, Version::Second)?;
        show(machine, "bootctl status")?;
        show(machine, "bootctl history")?;
        let status = machine.status()?;
        let refused = ["a", "b"]
            .iter()
            .any(|slot| status["slots"][slot]["quarantined"] == true);
        if !refused {
            bail!("version 3 is not in quarantine: {status:#}");
        }
        let (code, words) = step("a second install of version 3", || {
            machine.run_refused(&format!("bootctl install {url}"), Duration::from_secs(120))
        })?;
        print_inside(&words);
        if code != 3 {
            bail!("the exit code is {code}; a refusal has 3");
        }
        Ok(())
    }
}
