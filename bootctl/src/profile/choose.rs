//! Which profile is in force, and what it turns into.
//!
//! A profile on `state` that is not valid does not leave the machine without network and users: `status` and `health` say
//! so, a slot on trial is given up for it, and on a good one another stands in for it:
//!
//! | the machine's own profile | in force is |
//! | --- | --- |
//! | is valid | it |
//! | is not there, or gone | the image's; nothing is said |
//! | is not valid | the one that a good slot last ran with; else the image's without Kubernetes and virtual machines, because a cluster that exists would be given other names and networks |
//!
//! Recovery takes from a profile what makes a machine reachable and what it is to install by itself, and nothing else. It
//! may be older than the profile, so it reads it leniently: what it does not know and what is wrong is left out, `status`
//! names each, and only a file that is no mapping of YAML is not valid.
//!
//! It is chosen once a boot, by `sternpost-render.service`; whoever asks later gets the same answer.
//!
//! A profile is looked for in the image and on `state`, nowhere else: no stick and no firmware is searched for one.

use std::path::{Path, PathBuf};

use boot_core::Target;
use boot_core::boot_report::{self, BootReport};
use profile::kubernetes::Cluster;
use profile::schema::Kubernetes;
use profile::{Diagnostic, ImageFacts, MachineFacts, Reading, Rendered};
use serde::{Deserialize, Serialize};

use crate::failure::{Code, Doing as _, Failure, Result};
use crate::machine::facts::{boot_id, image_facts};
use crate::os::files::{read_json, write_atomic, write_durable};
use crate::os::paths::Paths;

/// The profile that is in force.
pub struct ChosenProfile {
    /// Where it lies.
    pub path: PathBuf,
    pub text: String,
    part: Part,
    /// What it turns into.
    pub rendered: Rendered,
    /// Why the one on `state` is not it.
    pub problem: Option<String>,
    /// The cluster that it asks for.
    pub cluster: Option<Cluster>,
    /// What is hardly meant in it.
    pub warnings: Vec<Diagnostic>,
    /// What of it recovery does not know, or what is wrong: it does not count.
    pub left_out: Vec<Diagnostic>,
}

fn invalid(what: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Profile, what)
}

/// What is known of this machine.
fn machine_facts(paths: &Paths) -> MachineFacts {
    let line = |path: &Path| {
        small_file::read_to_string(path)
            .map(|text| text.trim().to_owned())
            .unwrap_or_default()
    };
    MachineFacts {
        machine_id: line(&paths.at("/etc/machine-id")),
        boot_id: boot_id(),
    }
}

/// Where the profile of this machine lies.
pub fn location(paths: &Paths) -> PathBuf {
    candidates(paths).swap_remove(0)
}

/// Where a profile of this machine may lie: the one that counts first, the image's last.
///
/// What a good slot last ran with comes between the machine's own and the image's: it stands in for one of its own that is
/// not valid, so that a cluster goes on with the settings that it was made with. In recovery, which has none of its own, it
/// comes first, because the machine could be reached with it: a newer one may be what brought it here.
fn candidates(paths: &Paths) -> Vec<PathBuf> {
    // One that cannot be looked at is read all the same, so that the reason is said.
    let may_be_there = |path: &PathBuf| path.try_exists().unwrap_or(true);
    let own = Some(paths.state("profile.yaml")).filter(may_be_there);
    let good = Some(paths.state(GOOD)).filter(may_be_there);
    let of_state = match is_recovery(paths) {
        true => [good, own],
        // Without one of its own the image's is the machine's, the one of a new version too.
        false => [own.clone(), good.filter(|_| own.is_some())],
    };
    let of_state = of_state.into_iter().flatten();
    of_state.chain([paths.image("profile.yaml")]).collect()
}

/// The profile that a good slot last ran with.
const GOOD: &str = "good-profile.yaml";

/// Keeps `chosen`, with which the machine is healthy, for recovery.
pub fn keep_for_recovery(paths: &Paths, chosen: &ChosenProfile) {
    let path = paths.state(GOOD);
    if small_file::read(&path).is_ok_and(|kept| kept == chosen.text.as_bytes()) {
        return;
    }
    // It may hold password hashes.
    if let Err(e) = write_durable(&path, chosen.text.as_bytes(), 0o600) {
        eprintln!("bootctl: keeping the profile for recovery: {e}");
    }
}

/// Whether it is the recovery system that runs.
fn is_recovery(paths: &Paths) -> bool {
    read_json::<BootReport>(&paths.run(boot_report::FILE))
        .is_ok_and(|report| report.slot == Target::Recovery)
}

/// What an image without a profile of its own is to be, the recovery system for one.
pub(crate) const NOTHING_SAID: &str = "version: 1\nhostname: node-{machine-id:8}\n";

/// Reads, checks and renders the profile at `path`.
fn load(paths: &Paths, path: &Path, image: &ImageFacts, part: Part) -> Result<ChosenProfile> {
    let text = match small_file::read_to_string(path) {
        Ok(text) => text,
        Err(e)
            if e.kind() == std::io::ErrorKind::NotFound && path == paths.image("profile.yaml") =>
        {
            NOTHING_SAID.to_owned()
        }
        Err(e) => {
            return Err(invalid(e)
                .doing(format!("reading the profile {}", path.display()))
                .next("name a profile that can be read; docs/guides describe what goes into one"));
        }
    };
    let kept = Kept {
        path: path.to_owned(),
        text,
        part,
        problem: None,
    };
    kept.render(paths, image)
}

/// How much of a profile is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Part {
    /// All of it.
    Whole,
    /// What the machine needs to be reached and repaired: no Kubernetes, no virtual machines.
    Host,
    /// The same, and of that what this recovery understands.
    Recovery,
}

/// `/run/sternpost/profile.json`: what was chosen in this boot. Profiles that are changed while it runs count from the next
/// boot on.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    path: PathBuf,
    text: String,
    part: Part,
    problem: Option<String>,
}

impl Kept {
    fn render(self, paths: &Paths, image: &ImageFacts) -> Result<ChosenProfile> {
        let Self {
            path,
            text,
            part,
            problem,
        } = self;
        let name = path.display().to_string();
        let read = match part {
            Part::Host => {
                profile::check(&text, &name, Reading::Strict).map(|(it, said)| (it.of_host(), said))
            }
            Part::Whole => profile::check(&text, &name, Reading::For(image)),
            Part::Recovery => profile::check(&text, &name, Reading::Lenient),
        };
        let (profile, said) = read
            .map_err(|diagnostics| invalid(format!("the profile is not valid\n{diagnostics}")))?;
        let rendered = profile::render(&profile, image, &machine_facts(paths))
            .map_err(|e| invalid(e).doing(format!("rendering the profile {name}")))?;
        Ok(ChosenProfile {
            path,
            text,
            part,
            rendered,
            problem,
            cluster: profile.kubernetes.as_ref().map(Kubernetes::cluster),
            warnings: said.warnings,
            left_out: said.errors,
        })
    }
}

const KEPT: &str = "profile.json";

/// The profile that was chosen in this boot; chosen now, if none was.
///
/// # Errors
/// There is none that can be used.
pub fn in_force(paths: &Paths) -> Result<ChosenProfile> {
    match read_json::<Kept>(&paths.run(KEPT)) {
        Ok(kept) => kept.render(paths, &image_facts(paths)?),
        Err(_) => choose(paths),
    }
}

/// Chooses the profile of this machine and keeps what was chosen for as long as this boot lasts.
///
/// # Errors
/// There is none that can be used.
pub fn choose_for_this_boot(paths: &Paths) -> Result<ChosenProfile> {
    let path = paths.run(KEPT);
    let chosen = choose(paths);
    // Whoever asks after this gets the same answer, or an error as well.
    if let Err(e) = std::fs::remove_file(&path)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        return Err(Failure::of(e).doing(format!("deleting {}", path.display())));
    }
    let chosen = chosen?;
    let kept = Kept {
        path: chosen.path.clone(),
        text: chosen.text.clone(),
        part: chosen.part,
        problem: chosen.problem.clone(),
    };
    let json = serde_json::to_vec(&kept).map_err(Failure::of)?;
    // It may hold password hashes.
    write_atomic(&path, &json, 0o600).doing(|| format!("writing {}", path.display()))?;
    Ok(chosen)
}

/// Reads the profile of this machine, or what stands in for one that is not valid.
fn choose(paths: &Paths) -> Result<ChosenProfile> {
    let image = image_facts(paths)?;
    let of_image = paths.image("profile.yaml");
    let mut wrong: Option<(PathBuf, Failure)> = None;
    for path in candidates(paths) {
        let stands_in = wrong.is_some() && path == of_image;
        let part = match (is_recovery(paths), stands_in) {
            (true, _) => Part::Recovery,
            (false, true) => Part::Host,
            (false, false) => Part::Whole,
        };
        match load(paths, &path, &image, part) {
            Ok(mut chosen) => {
                chosen.problem = wrong.map(|(instead, failure)| {
                    let first = failure.what.lines().take(2).collect::<Vec<_>>().join(": ");
                    let other = if stands_in {
                        "the host part of the image's own profile".to_owned()
                    } else {
                        path.display().to_string()
                    };
                    format!("{} is not in force, {other} is: {first}", instead.display())
                });
                return Ok(chosen);
            }
            Err(failure) => {
                wrong.get_or_insert((path, failure));
            }
        }
    }
    Err(wrong.map_or_else(
        || Failure::failed("there is no profile"),
        |(_, failure)| failure,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::facts::stand_in;

    #[test]
    fn a_profile_that_cannot_be_looked_at_is_a_problem_and_not_missing() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        stand_in::image(&paths);
        assert_eq!(choose(&paths).unwrap().problem, None);
        // ENOTDIR stands for whatever a disk may answer.
        stand_in::put(&paths.at("/state/sternpost"), "");
        let problem = choose(&paths).unwrap().problem.unwrap();
        assert!(
            problem.contains("profile.yaml is not in force"),
            "{problem}"
        );
    }

    const CLUSTER: &str = "kubernetes: {distribution: kubeadm, role: init}\n";

    /// A machine with Kubernetes whose image names it `image` and that has these profiles of its own.
    fn machine(own: &str, good: Option<&str>) -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        stand_in::image_with_kubernetes(&paths);
        let of_image = format!("version: 1\nhostname: image\n{CLUSTER}");
        stand_in::put(&paths.image("profile.yaml"), &of_image);
        stand_in::put(&paths.state("profile.yaml"), own);
        if let Some(good) = good {
            stand_in::put(&paths.state(GOOD), good);
        }
        (dir, paths)
    }

    #[test]
    fn the_last_good_profile_stands_in_for_one_that_is_not_valid() {
        let good = format!("version: 1\nhostname: till-7\n{CLUSTER}");
        let (_dir, paths) = machine("version: 1\nhostnme: till-7\n", Some(&good));
        let chosen = choose(&paths).unwrap();
        assert_eq!(chosen.rendered.hostname, "till-7");
        assert!(!chosen.rendered.lanes.is_empty(), "the cluster goes on");
        let problem = chosen.problem.unwrap();
        assert!(
            problem.contains("profile.yaml is not in force"),
            "{problem}"
        );
        assert!(problem.contains("good-profile.yaml is"), "{problem}");
        // Without one of its own, the image's counts: a good slot may have run with an older image's.
        std::fs::remove_file(paths.state("profile.yaml")).unwrap();
        let chosen = choose(&paths).unwrap();
        assert_eq!(chosen.rendered.hostname, "image");
        assert_eq!(chosen.problem, None);
    }

    #[test]
    fn the_images_profile_brings_up_no_cluster_for_one_that_is_not_valid() {
        for good in [None, Some("version: 2\n")] {
            let (_dir, paths) = machine("hostname: [\n", good);
            let chosen = choose(&paths).unwrap();
            assert_eq!(chosen.rendered.hostname, "image");
            assert!(chosen.rendered.lanes.is_empty());
            let problem = chosen.problem.unwrap();
            assert!(
                problem.contains("the host part of the image's"),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_profile_is_chosen_once_a_boot() {
        let (_dir, paths) = machine("version: 1\nhostname: till-7\n", None);
        assert_eq!(
            choose_for_this_boot(&paths).unwrap().rendered.hostname,
            "till-7"
        );
        for edit in ["version: 1\nhostname: till-8\n", "hostname: [\n"] {
            stand_in::put(&paths.state("profile.yaml"), edit);
            let chosen = in_force(&paths).unwrap();
            assert_eq!(chosen.rendered.hostname, "till-7");
            assert_eq!(chosen.problem, None);
        }
        // There may be hashes of passwords in it.
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(paths.run(KEPT))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
