//! Images that go wrong as a file on their `state` says, once in another way at each start: `qemu-tests/recipes/defective`.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::machine::Machine;
use crate::steps::{REBOOT, expect};

/// Where the image looks what is to go wrong.
const LIST: &str = "/var/lib/sternpost-tests/defects";

/// One way to go wrong, and what is to end it.
#[derive(Clone, Copy, Debug)]
pub struct Defect {
    /// Its name in the image.
    pub name: &'static str,
    /// What the console says when it is noticed, and at no other end.
    pub sign: &'static str,
    /// Seconds from the start of the slot before which the sign cannot come: the limit that is meant.
    pub no_sooner: u64,
}

impl Machine<'_> {
    /// Installs [`Version::Defective`](crate::artefacts::Version::Defective) from `url` and has one thing after another go
    /// wrong at its starts: each is seen on the console, by its sign and not too soon, and ends in another start. When in
    /// a start it happens is left to chance.
    ///
    /// # Errors
    /// One of them is not seen, or too soon, or the machine does not come back.
    pub fn install_defects(&mut self, url: &str, defects: &[Defect]) -> Result<()> {
        let mut chance = self.context.chance();
        let lines: Vec<String> = defects
            .iter()
            .map(|defect| format!("{} {}", defect.name, chance.u8(0..10)))
            .collect();
        self.run(&format!(
            "mkdir -p /var/lib/sternpost-tests && printf '%s %s\\n' {} > {LIST} && sync {LIST}",
            lines.join(" ")
        ))?;
        self.install_now(url)?;
        for defect in defects {
            self.wait_for_line("starting slot B", REBOOT)?;
            let began = Instant::now();
            let line = format!("sternpost-tests: defect {}", defect.name);
            self.wait_for_line(&line, self.boot_limit())?;
            self.wait_for_line(defect.sign, self.boot_limit())?;
            let after = began.elapsed();
            if after < Duration::from_secs(defect.no_sooner) {
                bail!(
                    "{}: {:?} came {} s after the slot was started, {} s before it can",
                    defect.name,
                    defect.sign,
                    after.as_secs(),
                    defect.no_sooner - after.as_secs()
                );
            }
            self.wait_for_boot(REBOOT)?;
        }
        Ok(())
    }

    /// That the log on `state`, which has the starts that went wrong as well, has each of these words in as many lines as
    /// the range says: who ended a start says so there, where the console shows only that it ended.
    ///
    /// # Errors
    /// It has fewer or more.
    pub fn expect_in_log(
        &mut self,
        what: &[(&str, std::ops::RangeInclusive<usize>)],
    ) -> Result<()> {
        let log = self.run_within("journalctl -q -o cat _PID=1 + _TRANSPORT=kernel", LOG)?;
        for (words, times) in what {
            let lines = log.lines().filter(|line| line.contains(words));
            let found = lines.count();
            expect(
                times.contains(&found),
                &format!("{words:?} in {times:?} lines of the log"),
                &found.into(),
            )?;
        }
        Ok(())
    }
}

/// How long the machine may take to show its log.
const LOG: Duration = Duration::from_secs(240);
