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
const PHASES: [(&str, Marker); 4] = [
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
];

enum Marker {
    Both(&'static str),
    Each {
        sternpost: &'static str,
        peer: &'static str,
    },
}

impl Marker {
    fn of(&self, boot: Boot) -> &'static str {
        match (self, boot) {
            (Marker::Both(words), _)
            | (
                Marker::Each {
                    sternpost: words, ..
                },
                Boot::Sternpost,
            )
            | (Marker::Each { peer: words, .. }, Boot::Peer) => words,
        }
    }
}

/// The medians of the phases over some boots. The first boot of a disk grows it; it is done before and not counted.
pub(crate) fn median(imager: &Path, disk: &Path, boot: Boot, runs: usize) -> Result<Vec<Phase>> {
    let boots = (0..runs.max(1))
        .map(|_| once(imager, disk, boot))
        .collect::<Result<Vec<_>>>()?;
    let medians = PHASES.iter().enumerate().map(|(row, (name, _))| {
        let mut values: Vec<f64> = boots
            .iter()
            .filter_map(|phases| phases.get(row))
            .map(|phase| phase.seconds)
            .collect();
        values.sort_by(f64::total_cmp);
        Phase {
            name,
            seconds: values.get(values.len() / 2).copied().unwrap_or(f64::NAN),
        }
    });
    Ok(medians.collect())
}

/// From the loader's start to switch-root, seconds.
pub(crate) fn to_switch_root(phases: &[Phase]) -> f64 {
    phases.iter().skip(1).map(|phase| phase.seconds).sum()
}

fn once(imager: &Path, disk: &Path, boot: Boot) -> Result<Vec<Phase>> {
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

fn follow(lines: &mpsc::Receiver<(Duration, String)>, boot: Boot) -> Result<Vec<Phase>> {
    let mut last = Duration::ZERO;
    let mut phases = Vec::new();
    for (name, marker) in &PHASES {
        let words = marker.of(boot);
        loop {
            let (at, line) = lines
                .recv_timeout(LIMIT)
                .map_err(|_| anyhow!("the console never said `{words}`"))?;
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
    Ok(phases)
}
