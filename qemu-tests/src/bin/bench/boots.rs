//! One boot, watched from outside: which line came when.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// The longest boot that is waited for.
const LIMIT: Duration = Duration::from_secs(180);

/// What is booted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot {
    /// Our loader and agent.
    Sternpost,
    /// systemd-boot and dracut.
    Peer,
}

/// A stretch of a boot.
#[derive(Clone, Debug)]
pub(crate) struct Phase {
    pub(crate) name: &'static str,
    pub(crate) seconds: f64,
}

/// The phases, each with the words that end it.
const PHASES: [(&str, Marker); 5] = [
    ("firmware", Marker::Both("BdsDxe: starting")),
    ("loader", Marker::Both("EFI stub:")),
    (
        "kernel to its first process",
        Marker::Each {
            sternpost: "sternpost: initrd agent",
            peer: "peer: initramfs",
        },
    ),
    (
        "initramfs to switch-root",
        Marker::Each {
            sternpost: "ms to switch-root",
            peer: "peer: switch-root",
        },
    ),
    // Of the peer's own only as far as it is compared.
    (SYSTEMD, Marker::Ours("multi-user.target")),
];

/// What comes after switch-root.
const SYSTEMD: &str = "systemd to multi-user.target";

/// What our programs say of themselves: the words before and after a number of milliseconds.
const OWN_WORDS: [(&str, &str, &str); 2] = [
    (
        "loader, from its first line to starting the UKI",
        "starting slot",
        "ms after the loader began",
    ),
    (
        "agent, from its first line to switch-root",
        "sternpost:",
        "ms to switch-root",
    ),
];

enum Marker {
    Both(&'static str),
    Ours(&'static str),
    Each {
        sternpost: &'static str,
        peer: &'static str,
    },
}

impl Marker {
    /// The words in this kind of boot; none where the phase is not measured.
    fn of(&self, boot: Boot) -> Option<&'static str> {
        match (self, boot) {
            (Marker::Ours(_), Boot::Peer) => None,
            (Marker::Both(words) | Marker::Ours(words), _)
            | (
                Marker::Each {
                    sternpost: words, ..
                },
                Boot::Sternpost,
            )
            | (Marker::Each { peer: words, .. }, Boot::Peer) => Some(words),
        }
    }
}

/// Of one boot, or the medians over some.
pub(crate) struct Timings {
    /// The phases as seen from outside.
    pub(crate) phases: Vec<Phase>,
    /// What our programs say of themselves.
    pub(crate) own_words: Vec<Phase>,
}

/// Boots the image so often. The first boot of a disk grows it; none of these does, because nothing is kept.
pub(crate) fn median(imager: &Path, disk: &Path, boot: Boot, runs: usize) -> Result<Timings> {
    let boots = (0..runs.max(1))
        .map(|_| once(imager, disk, boot))
        .collect::<Result<Vec<_>>>()?;
    Ok(Timings {
        phases: medians(boots.iter().map(|boot| &boot.phases)),
        own_words: medians(boots.iter().map(|boot| &boot.own_words)),
    })
}

/// The median of each phase.
pub(crate) fn medians<'a>(boots: impl Iterator<Item = &'a Vec<Phase>> + Clone) -> Vec<Phase> {
    let names = boots.clone().next().into_iter().flatten();
    let of_row = |row: usize| {
        let of_boots = boots.clone().filter_map(|phases| phases.get(row));
        let mut values: Vec<f64> = of_boots.map(|phase| phase.seconds).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    names
        .enumerate()
        .map(|(row, phase)| Phase {
            name: phase.name,
            seconds: of_row(row),
        })
        .collect()
}

/// From the loader's start to switch-root, seconds.
pub(crate) fn to_switch_root(phases: &[Phase]) -> f64 {
    let compared = phases.iter().filter(|phase| phase.name != SYSTEMD);
    compared.skip(1).map(|phase| phase.seconds).sum()
}

fn once(imager: &Path, disk: &Path, boot: Boot) -> Result<Timings> {
    let variables = tempfile::tempdir().context("cannot make a temporary directory")?;
    let mut child = Command::new(imager)
        .arg("run")
        .arg(disk)
        .args([
            "--arch",
            "x86_64",
            "--ephemeral",
            "--cpus",
            "2",
            "--memory",
            "1024",
        ])
        .arg("--firmware-vars")
        .arg(variables.path().join("variables.fd"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", imager.display()))?;
    let began = Instant::now();
    let console = child.stdout.take().context("the machine has no console")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut console = BufReader::new(console);
        let mut line = Vec::new();
        while console
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line).into_owned();
            if sender.send((began.elapsed(), text)).is_err() {
                return;
            }
            line.clear();
        }
    });
    let result = follow(&lines, boot);
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let _ = child.wait();
    result
}

fn follow(lines: &mpsc::Receiver<(Duration, String)>, boot: Boot) -> Result<Timings> {
    let mut last = Duration::ZERO;
    let (mut phases, mut own_words) = (Vec::new(), Vec::new());
    for (name, marker) in &PHASES {
        let Some(words) = marker.of(boot) else {
            continue;
        };
        loop {
            let (at, line) = lines
                .recv_timeout(LIMIT)
                .map_err(|_| anyhow!("the console never said `{words}`"))?;
            own_words.extend(own_word(&line));
            if line.contains(words) {
                phases.push(Phase {
                    name,
                    seconds: (at - last).as_secs_f64(),
                });
                last = at;
                break;
            }
        }
    }
    Ok(Timings { phases, own_words })
}

/// What a line says of how long one of our programs took.
fn own_word(line: &str) -> Option<Phase> {
    OWN_WORDS.iter().find_map(|(name, before, after)| {
        let (start, _) = line.split_once(after)?;
        let milliseconds: f64 = start.split_whitespace().last()?.parse().ok()?;
        start.contains(before).then_some(Phase {
            name,
            seconds: milliseconds / 1000.0,
        })
    })
}
