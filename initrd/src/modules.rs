//! Kernel modules: which ones, in which order. Pure but for [`load`].
//!
//! /sternpost/modules.json says what the initramfs has: `always` in the order to load, `watchdog` first of all,
//! `depends` per module, `aliases` as patterns of modaliases. Nothing here calls modprobe, and the kernel's own
//! request_module finds nothing in an initramfs without it, so all is loaded before it is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::Deserialize;

use crate::failure::{Context, Failure};

/// Where the modules are, each as NAME.ko, uncompressed.
const FOLDER: &str = "/sternpost/modules";

/// The index of the initramfs's modules.
#[derive(Debug, Default, Deserialize)]
pub struct Index {
    /// Release of the kernel that the modules are for.
    #[serde(default)]
    pub kernel: String,
    /// Loaded at every boot, in this order.
    #[serde(default)]
    pub always: Vec<String>,
    /// Drivers of hardware watchdogs, and what makes their devices appear.
    #[serde(default)]
    pub watchdog: Vec<String>,
    /// What each module needs loaded before it.
    #[serde(default)]
    pub depends: BTreeMap<String, Vec<String>>,
    /// Patterns of modaliases and the module that answers to each.
    #[serde(default)]
    pub aliases: Vec<(String, String)>,
}

impl Index {
    /// Parses modules.json.
    ///
    /// # Errors
    /// When it is not what imager writes.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        serde_json::from_str(text).context("reading", "/sternpost/modules.json")
    }

    /// A module and all that it needs, in the order to load them.
    #[must_use]
    pub fn with_dependencies(&self, name: &str) -> Vec<String> {
        let mut order = Vec::new();
        self.visit(name, &mut BTreeSet::new(), &mut order);
        order
    }

    fn visit(&self, name: &str, seen: &mut BTreeSet<String>, order: &mut Vec<String>) {
        if !seen.insert(name.to_owned()) {
            return;
        }
        for needed in self.depends.get(name).into_iter().flatten() {
            self.visit(needed, seen, order);
        }
        order.push(name.to_owned());
    }

    /// Modules that answer to any of these modaliases: watchdogs first, then what is quick to show a disk.
    #[must_use]
    pub fn wanted_by<'a>(&self, modaliases: impl Iterator<Item = &'a str>) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for modalias in modaliases {
            for (pattern, module) in &self.aliases {
                if !found.contains(module) && matches(pattern.as_bytes(), modalias.as_bytes()) {
                    found.push(module.clone());
                }
            }
        }
        found.sort_by_key(|module| self.rank(module));
        found
    }

    /// The smaller, the sooner.
    fn rank(&self, module: &str) -> [bool; 3] {
        [
            !self.is_watchdog(module),
            !module.starts_with("virtio"),
            !module.starts_with("nvme"),
        ]
    }

    /// Whether a module is on the watchdogs' list.
    #[must_use]
    pub fn is_watchdog(&self, module: &str) -> bool {
        self.watchdog.iter().any(|name| name == module)
    }
}

/// Drivers that the hardware asks for, in the order to load them. What a driver makes appear comes in between: the disk
/// behind a bus that has just been found goes before the controllers that nobody needs to start.
#[derive(Debug, Default)]
pub struct Queue {
    seen: BTreeSet<String>,
    waiting: Vec<String>,
    taken: BTreeSet<String>,
}

impl Queue {
    /// Adds what answers to those of `modaliases` that were not there before.
    pub fn add(&mut self, index: &Index, modaliases: BTreeSet<String>) {
        let new = modaliases.difference(&self.seen).map(String::as_str);
        for module in index.wanted_by(new) {
            if self.taken.insert(module.clone()) {
                self.waiting.push(module);
            }
        }
        // Stable, so that what came first stays first among its equals.
        self.waiting.sort_by_key(|module| index.rank(module));
        self.seen.extend(modaliases);
    }

    /// The next to load, which is then no longer waiting.
    pub fn take(&mut self) -> Option<String> {
        (!self.waiting.is_empty()).then(|| self.waiting.remove(0))
    }
}

/// Shell patterns as module aliases use them: `*`, `?` and `[a-z]`.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on after the latest `*` when what follows it does not fit here.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(p + 1),
            Some(b'[') => in_class(pattern, p, text.get(t).copied().unwrap_or(0)),
            Some(byte) if text.get(t) == Some(byte) => Some(p + 1),
            _ => None,
        };
        match (step, retry) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((after, from))) => {
                retry = Some((after, from + 1));
                p = after;
                t = from + 1;
            }
            (None, None) => return false,
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// Where a pattern goes on after the class at `start`, if the class has `byte`.
fn in_class(pattern: &[u8], start: usize, byte: u8) -> Option<usize> {
    let body = pattern.get(start + 1..)?;
    let length = body.iter().position(|b| *b == b']')?;
    let mut class = body.get(..length)?;
    let mut hit = false;
    while let [first, rest @ ..] = class {
        if let [b'-', last, after @ ..] = rest {
            hit |= (*first..=*last).contains(&byte);
            class = after;
        } else {
            hit |= *first == byte;
            class = rest;
        }
    }
    hit.then_some(start + length + 2)
}

/// Loads one module.
///
/// # Errors
/// When there is no such file or the kernel refuses it. That it is loaded already is not an error.
pub fn load(name: &str) -> Result<(), Failure> {
    load_with(name, c"")
}

/// Loads a watchdog's driver, so that nothing can stop the watchdog any more if the driver has that choice.
pub fn load_watchdog(name: &str) -> Result<(), Failure> {
    // One that cannot be read shows when it is loaded.
    let module = std::fs::read(path(name)).unwrap_or_default();
    let parameters = if takes_nowayout(&module) {
        c"nowayout=1"
    } else {
        c""
    };
    load_with(name, parameters)
}

/// Whether a module has the parameter `nowayout`: its section .modinfo is a list of strings that end in zero.
fn takes_nowayout(module: &[u8]) -> bool {
    const TYPE: &[u8] = b"parmtype=nowayout:";
    module.windows(TYPE.len()).any(|bytes| bytes == TYPE)
}

fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(format!("{name}.ko"))
}

fn load_with(name: &str, parameters: &CStr) -> Result<(), Failure> {
    let path = path(name);
    let file = File::open(&path).context("opening the kernel module", path.display())?;
    match rustix::system::finit_module(&file, parameters, 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(Failure::new("loading the kernel module", name, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        Index::parse(
            r#"{"kernel":"6.12","always":["dm_verity"],"watchdog":["i6300esb"],
                "depends":{"dm_verity":["dm_bufio","dm_mod"],"dm_bufio":["dm_mod"]},
                "aliases":[["virtio:d00000002v*","virtio_blk"],["pci:v00008086d000025ABsv*sd*bc*sc*i*","i6300esb"]]}"#,
        )
        .unwrap()
    }

    #[test]
    fn needed_modules_come_first_and_once() {
        assert_eq!(
            index().with_dependencies("dm_verity"),
            ["dm_mod", "dm_bufio", "dm_verity"]
        );
        assert_eq!(index().with_dependencies("unknown"), ["unknown"]);
    }

    #[test]
    fn a_circle_of_dependencies_ends() {
        let index = Index::parse(r#"{"depends":{"a":["b"],"b":["a"]}}"#).unwrap();
        assert_eq!(index.with_dependencies("a"), ["b", "a"]);
    }

    #[test]
    fn the_watchdog_is_wanted_first() {
        let wanted = index().wanted_by(
            [
                "virtio:d00000002v00001AF4",
                "pci:v00008086d000025ABsv00001AF4sd00001100bc08sc80i00",
                "acpi:PNP0C0A:",
            ]
            .into_iter(),
        );
        assert_eq!(wanted, ["i6300esb", "virtio_blk"]);
    }

    #[test]
    fn the_disk_behind_a_bus_goes_before_other_controllers() {
        let index = Index::parse(
            r#"{"aliases":[["pci:a*","ahci"],["pci:v1af4*","virtio_pci"],["pci:n*","nvme"],["virtio:d2*","virtio_blk"]]}"#,
        )
        .unwrap();
        let there = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut queue = Queue::default();
        queue.add(&index, there(&["pci:a1", "pci:v1af4", "pci:n1"]));
        assert_eq!(queue.take().as_deref(), Some("virtio_pci"));
        queue.add(
            &index,
            there(&["pci:a1", "pci:v1af4", "pci:n1", "virtio:d2"]),
        );
        let rest: Vec<String> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(rest, ["virtio_blk", "nvme", "ahci"]);
        queue.add(&index, there(&["pci:a2", "virtio:d2"]));
        assert_eq!(queue.take(), None, "each once");
    }

    #[test]
    fn nowayout_is_given_to_those_that_take_it() {
        assert!(takes_nowayout(
            b"\x7fELF\0license=GPL\0parmtype=heartbeat:int\0parmtype=nowayout:bool\0"
        ));
        assert!(!takes_nowayout(
            b"\x7fELF\0parm=heartbeat:nowayout is not here\0"
        ));
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, text, expected) in [
            (
                "usb:v*p*ic08isc06ip50in*",
                "usb:v0781p5581d0100dc00dsc00dp00ic08isc06ip50in00",
                true,
            ),
            (
                "usb:v*p*ic08isc06ip62in*",
                "usb:v0781p5581d0100dc00dsc00dp00ic08isc06ip50in00",
                false,
            ),
            ("a[0-3]c", "a2c", true),
            ("a[0-3]c", "a4c", false),
            ("a?c", "abc", true),
            ("a*", "a", true),
            ("", "", true),
            ("*b", "aab", true),
            ("*b", "aaba", false),
            ("a[", "a[", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }
}
