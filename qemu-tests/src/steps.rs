//! What many scenarios do: wait for a version to be well, install another one, look at what `bootctl` says.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use serde_json::Value;

use crate::artefacts::{Image, Version};
use crate::disk::Disk;
use crate::machine::{Machine, Options, boot_limit};
use crate::qmp::ResetBy;
use crate::scenario::Context;

/// How long a machine may take from the loader's first line to the verdict; slow hosts have slow emulation.
const VERDICT: Duration = Duration::from_secs(1500);

/// How long a reboot may take to the loader's first line: the way down and the firmware.
pub const REBOOT: Duration = Duration::from_secs(400);

impl Context {
    /// The image of `version` of this scenario's recipe, for disks with sectors of 512 bytes.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn image(&self, version: Version) -> Result<Image> {
        self.image_for(version, 512)
    }

    /// The same for disks with sectors of `sector_size` bytes.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn image_for(&self, version: Version, sector_size: u32) -> Result<Image> {
        let scenario = self.scenario();
        self.artefacts()
            .recipe(scenario.recipe, scenario.architecture, version, sector_size)
    }

    /// Starts a machine and waits until `version` runs and is marked good.
    ///
    /// # Errors
    /// It does not in time.
    pub fn start_well(
        &self,
        disks: &[&Disk],
        options: Options,
        version: Version,
    ) -> Result<Machine<'_>> {
        let mut machine = self.start(disks, options)?;
        machine.wait_for_boot(boot_limit(self.scenario().architecture))?;
        machine.wait_until_good(version.number())?;
        Ok(machine)
    }

    /// Starts a machine whose record cannot be written, until a slot starts in it: one time in eight, by chance, it is
    /// recovery's turn.
    ///
    /// # Errors
    /// No slot starts.
    pub fn start_unrecorded(&self, disk: &Disk, options: &Options) -> Result<Machine<'_>> {
        for _ in 0..8 {
            let mut machine = self.start(&[disk], options.clone())?;
            let limit = machine.boot_limit();
            let line = machine.wait_for_any(&["starting slot", "starting recovery"], limit)?;
            if line.contains("starting slot") {
                return Ok(machine);
            }
            machine.switch_off();
        }
        bail!("recovery started eight times in a row")
    }
}

impl Machine<'_> {
    /// The architecture's limit for one boot.
    #[must_use]
    pub fn boot_limit(&self) -> Duration {
        boot_limit(self.architecture())
    }

    /// Waits for the verdict of the health gate, which is to be that `version` is healthy; gives the status.
    ///
    /// # Errors
    /// Another version runs, or it is not healthy, or not in time.
    pub fn wait_until_good(&mut self, version: &str) -> Result<Value> {
        self.wait_for_verdict(version, VERDICT)?;
        self.status_of(version)
    }

    /// What `bootctl status --json` says once the machine can be logged into; `version` is to run and be good.
    ///
    /// # Errors
    /// Another version runs, or it is not good.
    pub fn status_of(&mut self, version: &str) -> Result<Value> {
        self.wait_for_ssh(self.boot_limit())?;
        let status = self.status()?;
        expect(
            status["booted"]["version"] == version && status["booted"]["good"] == true,
            &format!("version {version} marked good"),
            &status,
        )?;
        Ok(status)
    }

    /// Waits until the machine says on its console that `version` is healthy: looking from outside again and again
    /// would take what an emulated machine needs to become so. What the console is given while a login prompt is being
    /// made may be lost, so that it is asked once in the middle.
    ///
    /// # Errors
    /// It says something else, or nothing in time.
    pub fn wait_for_verdict(&mut self, version: &str, limit: Duration) -> Result<()> {
        let patterns = [": healthy ", ": unhealthy, "];
        let line = match self.wait_for_any(&patterns, limit / 2) {
            Ok(line) => line,
            Err(_) if self.has_been_well(version) => return Ok(()),
            Err(_) => self.wait_for_any(&patterns, limit / 2)?,
        };
        if !line.contains(&format!("version {version}: healthy")) {
            bail!("version {version} was to be healthy, the machine says: {line}");
        }
        Ok(())
    }

    /// Whether the machine can be asked, runs this version, and has found it healthy.
    fn has_been_well(&mut self, version: &str) -> bool {
        self.is_on()
            && self.status().is_ok_and(|status| {
                status["booted"]["version"] == version && status["health"]["verdict"] == "healthy"
            })
    }

    /// `bootctl install --now`, up to the next start of the loader.
    ///
    /// # Errors
    /// It is refused, or the machine does not come back.
    pub fn install_now(&mut self, url: &str) -> Result<()> {
        let install = format!("bootctl install --now {url}");
        self.run_until_boot(&install, Duration::from_secs(600))
    }

    /// `bootctl update-loader --now`, up to the next start of a loader.
    ///
    /// # Errors
    /// It is refused, or the machine does not come back.
    pub fn update_loader_now(&mut self, url: &str) -> Result<()> {
        let update = format!("bootctl update-loader --now {url}");
        self.run_until_boot(&update, Duration::from_secs(120))
    }

    /// A command that ends in a restart, up to the next start of the loader.
    ///
    /// # Errors
    /// It is refused, or the machine does not come back.
    pub fn run_until_boot(&mut self, command: &str, limit: Duration) -> Result<()> {
        // The reboot ends the connection before the command has ended.
        let ended = self.run_within(command, limit);
        self.wait_for_boot(REBOOT).map_err(|error| match ended {
            Err(refused) => anyhow!("{refused:#}\n{error:#}"),
            Ok(_) => error,
        })
    }

    /// Waits until the emulated hardware watchdog resets the machine, no sooner than `least` and within `most`; then for the
    /// next start of the loader. Another reset does not count.
    ///
    /// # Errors
    /// It does not, or too soon.
    pub fn wait_for_watchdog(&mut self, least: Duration, most: Duration) -> Result<()> {
        let mut qmp = self.qmp()?;
        qmp.wait_for_reset(ResetBy::Watchdog, least, most)?;
        drop(qmp);
        self.wait_for_boot(REBOOT)
    }

    /// The two starts of slot B that are left after the first has ended, each of which is to be ended by the hardware
    /// watchdog after `least` and within `most`, up to the next start of the loader.
    ///
    /// # Errors
    /// Another slot starts, or a start ends in another way.
    pub fn use_up_tries(&mut self, least: Duration, most: Duration) -> Result<()> {
        for _ in 0..2 {
            self.wait_for_line("starting slot B", REBOOT)?;
            self.wait_for_watchdog(least, self.boot_limit() + most)?;
        }
        Ok(())
    }

    /// `bootctl reboot`, up to the next start of the loader.
    ///
    /// # Errors
    /// The machine does not come back.
    pub fn reboot(&mut self) -> Result<()> {
        // The connection may end before the command has.
        let _ = self.run("bootctl reboot");
        self.wait_for_boot(REBOOT)
    }

    /// Waits until version 1.0.0 in slot A is good again, with slot B left as `left` says. What `status` says then.
    ///
    /// # Errors
    /// Another slot starts, it does not become good, or B is something else.
    pub fn wait_until_back(&mut self, left: &str) -> Result<Value> {
        self.wait_for_line("starting slot A", REBOOT)?;
        let status = self.wait_until_good(Version::First.number())?;
        expect(
            status["slots"]["b"]["status"] == left,
            &format!("slot B to be {left}"),
            &status["slots"],
        )?;
        Ok(status)
    }

    /// Leaves a file on `state`, synced; gives the machine's id, which is there too. See [`Machine::expect_mark`].
    ///
    /// # Errors
    /// The machine cannot be logged into, or the file cannot be written.
    pub fn leave_mark(&mut self) -> Result<String> {
        self.wait_for_ssh(self.boot_limit())?;
        self.run("echo kept > /var/lib/kept && sync")?;
        self.run("cat /etc/machine-id")
    }

    /// That file is still there, and the machine has the `id` that it had then.
    ///
    /// # Errors
    /// One of them is lost.
    pub fn expect_mark(&mut self, id: &str) -> Result<()> {
        let now = self.run("cat /etc/machine-id /var/lib/kept")?;
        expect(
            now == format!("{id}kept\n"),
            "the machine's id and its file from before",
            &now.clone().into(),
        )
    }

    /// Waits until the machine is up with /state in memory, and stays up so; gives the status.
    ///
    /// # Errors
    /// It uses the partition, or does not come up.
    pub fn wait_until_up_without_state(&mut self) -> Result<Value> {
        self.wait_for_line("going on with /state in memory", self.boot_limit())?;
        self.wait_for_line(": unhealthy, stays up: ", self.boot_limit())?;
        // By the users of the image's profile: it can be managed.
        self.wait_for_ssh(self.boot_limit())?;
        self.status()
    }

    /// Gives the machine a profile of its own: the image's, and one more line. It counts from the next start on.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn add_to_profile(&mut self, line: &str) -> Result<()> {
        self.run(&format!(
            "(cat /usr/lib/sternpost/profile.yaml; echo '{line}') > /state/sternpost/profile.yaml && sync"
        ))?;
        Ok(())
    }

    /// Has the profile say that recovery installs `url` by itself, and switches the machine off when it was well with
    /// that: what recovery goes by is what a good slot ran with.
    ///
    /// # Errors
    /// Version 1.0.0 does not become good again.
    pub fn have_recovery_install(mut self, url: &str) -> Result<()> {
        self.add_to_profile(&format!("recovery: {{install: \"{url}\"}}"))?;
        self.reboot()?;
        self.wait_until_good(Version::First.number())?;
        self.power_off()
    }

    /// Switches the machine off in an orderly way.
    ///
    /// # Errors
    /// It stays on.
    pub fn power_off(&mut self) -> Result<()> {
        // The connection ends with the machine; what ssh says of that does not matter.
        let _ = self.run("systemctl poweroff");
        self.wait_for_power_off(REBOOT)
    }

    /// The history, once it has an event of a kind or with words in it: what is looked for after the verdict takes its
    /// time.
    ///
    /// # Errors
    /// It does not come in time.
    pub fn history_with(&mut self, what: &str, limit: Duration) -> Result<Vec<Value>> {
        self.history_where(&format!("event {what:?}"), limit, |event| {
            event["kind"] == what || event["text"].as_str().is_some_and(|it| it.contains(what))
        })
    }

    /// The same, once it has an event of which `is_it` holds; `what` names it.
    ///
    /// # Errors
    /// It does not come in time.
    pub fn history_where(
        &mut self,
        what: &str,
        limit: Duration,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<Vec<Value>> {
        let deadline = Instant::now() + limit;
        loop {
            let history = self.history()?;
            if history.iter().any(&is_it) {
                return Ok(history);
            }
            if Instant::now() >= deadline {
                bail!(
                    "no {what} within {} s:\n{:#}",
                    limit.as_secs(),
                    Value::from(history)
                );
            }
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    /// The events that `bootctl history --json` shows, newest or oldest first as it does.
    ///
    /// # Errors
    /// It cannot be run.
    pub fn history(&mut self) -> Result<Vec<Value>> {
        let history = self.json("bootctl history --json --limit 256")?;
        Ok(history["events"].as_array().cloned().unwrap_or_default())
    }
}

/// Fails with `what` and the value unless `condition` holds.
///
/// # Errors
/// It does not hold.
pub fn expect(condition: bool, what: &str, found: &Value) -> Result<()> {
    if condition {
        Ok(())
    } else {
        bail!("expected {what}, found:\n{found:#}")
    }
}

/// Whether the loader rejected `slot` at this start, with `reason` among its words.
///
/// # Errors
/// It did not.
pub fn expect_rejected(status: &Value, slot: &str, reason: &str) -> Result<()> {
    let rejected = status["booted"]["rejected"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = rejected.iter().any(|it| {
        it["slot"] == slot
            && it["reason"]
                .as_str()
                .is_some_and(|text| text.contains(reason))
    });
    expect(
        found,
        &format!("slot {slot} to be rejected because of {reason:?}"),
        &status["booted"],
    )
}
