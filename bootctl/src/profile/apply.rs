//! `profile apply`: the part of a profile that has to be there early in the boot, and the clock before it.

use std::path::{Path, PathBuf};

use profile::{ImageFacts, Rendered, When};
use serde::{Deserialize, Serialize};

use super::choose::choose_for_this_boot;
use crate::bring_up::files::write_files;
use crate::bring_up::step;
use crate::failure::{Doing, Failure, Result};
use crate::kubernetes::ApiServers;
use crate::machine::facts::image_facts;
use crate::os::clock::{self, Clock, Known};
use crate::os::files::{read_json, write_atomic, write_durable};
use crate::os::paths::Paths;
use crate::os::process;

/// What `profile apply` did, in `/run/sternpost/applied.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Applied {
    pub profile: PathBuf,
    /// Why the one on `state` was not used.
    pub problem: Option<String>,
    /// About the clock.
    pub clock: Option<Clock>,
}

/// Puts the clock right, before anything makes a certificate.
fn set_clock(paths: &Paths, image: &ImageFacts) -> Clock {
    let known = Known {
        built: i64::try_from(image.build_time).unwrap_or(0),
        saved: clock::saved(&paths.state("clock")),
        rtc: clock::rtc(Path::new("/sys")),
    };
    let mut judged = clock::judge(clock::now(), known);
    if let Some(to) = judged.set_to
        && let Err(e) = clock::set(to)
    {
        judged.implausible = Some(format!("the clock could not be set: {e}"));
    }
    judged
}

/// `bootctl profile apply`: the clock, the early files, the host name, the early commands.
pub fn apply(paths: &Paths, real: bool) -> Result<Applied> {
    let image = image_facts(paths)?;
    let clock = real.then(|| set_clock(paths, &image));
    let chosen = choose_for_this_boot(paths);
    let applied = Applied {
        profile: chosen.as_ref().map(|c| c.path.clone()).unwrap_or_default(),
        problem: chosen
            .as_ref()
            .map_or_else(|e| Some(e.to_string()), |c| c.problem.clone()),
        clock,
    };
    // First, so that `serve` and `status` can say it whatever comes next.
    let json = serde_json::to_vec_pretty(&applied).map_err(Failure::of)?;
    let out = paths.run("applied.json");
    write_atomic(&out, &json, 0o644).doing(|| format!("writing {}", out.display()))?;
    let chosen = chosen?;
    write_files(paths, &chosen.rendered, When::Early)?;
    set_hostname(paths, &chosen.rendered.hostname, real)?;
    if real && !chosen.rendered.early.is_empty() {
        early_steps(paths, &chosen.rendered)?;
    }
    Ok(applied)
}

fn set_hostname(paths: &Paths, name: &str, real: bool) -> Result<()> {
    let line = format!("{name}\n");
    type Write = fn(&Path, &[u8], u32) -> std::io::Result<()>;
    let places: [(PathBuf, Write); 2] = [
        (paths.at("/etc/hostname"), write_atomic),
        (paths.state("hostname"), write_durable),
    ];
    for (path, write) in places {
        if small_file::read(&path).is_ok_and(|found| found == line.as_bytes()) {
            continue;
        }
        let done = write(&path, line.as_bytes(), 0o644);
        // A full `state` must not keep the machine from coming up.
        if let Err(e) = done {
            eprintln!("writing {}: {e}", path.display());
        }
    }
    if real {
        rustix::system::sethostname(name.as_bytes())
            .map_err(std::io::Error::from)
            .doing(|| format!("setting the host name to {name}"))?;
    }
    Ok(())
}

fn early_steps(paths: &Paths, rendered: &Rendered) -> Result<()> {
    // In one runtime: what asks the Kubernetes API belongs to the one in which it first asked.
    process::wait_for(async {
        let api = ApiServers::new(paths.clone());
        for step in &rendered.early {
            match step::attempt(step, 1, paths, &api).await {
                Err(e) if step.required => return Err(e),
                Err(e) => eprintln!("{e}"),
                Ok(()) => {}
            }
        }
        Ok(())
    })
}

/// What the last `profile apply` left.
pub fn applied(paths: &Paths) -> Option<Applied> {
    read_json(&paths.run("applied.json")).ok()
}
