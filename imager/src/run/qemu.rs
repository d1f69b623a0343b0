//! The QEMU command line: the one place that knows how a machine is emulated.
//!
//! [`Machine`] is plain data, [`Machine::arguments`] a pure function of it, so that the harness,
//! `imager run --print` and a person at a terminal start exactly the same machine.

use std::path::PathBuf;

use crate::arch::Architecture;
use anyhow::{Result, bail};

/// How QEMU runs the guest's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Accelerator {
    /// The host's KVM.
    Kvm,
    /// Software emulation.
    Tcg,
}

/// The bus that disks hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Bus {
    /// virtio-blk on PCI.
    Virtio,
    /// NVMe.
    Nvme,
    /// SATA behind an AHCI controller (512-byte sectors only).
    Ahci,
    /// A USB stick on an xHCI controller.
    Usb,
}

/// A disk image.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The file.
    pub path: PathBuf,
    /// The file is qcow2, not raw.
    pub qcow2: bool,
}

/// Where the serial console goes.
#[derive(Clone, Debug)]
pub enum Serial {
    /// This terminal; ctrl-a x ends QEMU, ctrl-a c reaches its monitor.
    Terminal,
    /// A file, from its beginning.
    File(PathBuf),
    /// A listening UNIX socket, and a file that keeps what came out.
    Socket {
        /// The socket.
        path: PathBuf,
        /// The log.
        log: Option<PathBuf>,
    },
}

/// A machine to start.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What it is.
    pub architecture: Architecture,
    /// Boot disk first.
    pub disks: Vec<Disk>,
    /// Where the disks hang.
    pub bus: Bus,
    /// Logical sector size of every disk.
    pub sector_size: u32,
    /// Writes to disks and variables are thrown away at the end.
    pub ephemeral: bool,
    /// Where every write and every flush of the boot disk is recorded, in the format of the kernel's dm-log-writes.
    pub record: Option<PathBuf>,
    /// The firmware's code (read-only).
    pub firmware: PathBuf,
    /// The firmware's variables (written).
    pub variables: PathBuf,
    /// How it runs.
    pub accelerator: Accelerator,
    /// MiB.
    pub memory: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// The serial console.
    pub serial: Serial,
    /// A QMP socket to listen on.
    pub qmp: Option<PathBuf>,
    /// A port of 127.0.0.1 that leads to the machine's port 22.
    pub ssh: Option<u16>,
    /// A hardware watchdog that resets the machine.
    pub watchdog: bool,
    /// Handed to QEMU as they are, last.
    pub extra: Vec<String>,
}

impl Machine {
    /// The QEMU program for this architecture.
    #[must_use]
    pub fn program(&self) -> &'static str {
        program(self.architecture)
    }

    /// The arguments after the program's name.
    ///
    /// # Errors
    /// The combination does not exist: 4096-byte sectors on AHCI, a record of a disk that is not
    /// raw or whose writes are thrown away.
    pub fn arguments(&self) -> Result<Vec<String>> {
        let mut args = Vec::new();
        let mut push = |flag: &str, value: String| {
            args.push(flag.to_owned());
            args.push(value);
        };
        let (machine, cpu) = match (self.architecture, self.accelerator) {
            (Architecture::X86_64, Accelerator::Kvm) => ("q35,smm=off", "host"),
            (Architecture::X86_64, Accelerator::Tcg) => ("q35,smm=off", "max,la57=off"),
            (Architecture::Aarch64, Accelerator::Kvm) => ("virt,gic-version=max", "host"),
            // `max` emulates pointer authentication, which costs more than it shows.
            (Architecture::Aarch64, Accelerator::Tcg) => ("virt,gic-version=3", "cortex-a72"),
        };
        push("-machine", machine.to_owned());
        push(
            "-accel",
            match self.accelerator {
                Accelerator::Kvm => "kvm".to_owned(),
                Accelerator::Tcg => "tcg,thread=multi".to_owned(),
            },
        );
        push("-cpu", cpu.to_owned());
        push("-smp", self.cpus.to_string());
        push("-m", format!("{}M", self.memory));
        push("-display", "none".to_owned());
        let snapshot = if self.ephemeral { ",snapshot=on" } else { "" };
        push(
            "-drive",
            format!(
                "if=pflash,unit=0,format=raw,readonly=on,file={}",
                path(&self.firmware)
            ),
        );
        push(
            "-drive",
            format!(
                "if=pflash,unit=1,format=raw{snapshot},file={}",
                path(&self.variables)
            ),
        );
        self.serial_arguments(&mut push);
        if let Some(socket) = &self.qmp {
            push("-qmp", format!("unix:{},server=on,wait=off", path(socket)));
        }
        push("-device", "virtio-rng-pci".to_owned());
        let forward = match self.ssh {
            Some(port) => format!(",hostfwd=tcp:127.0.0.1:{port}-:22"),
            None => String::new(),
        };
        push("-netdev", format!("user,id=net0{forward}"));
        push("-device", "virtio-net-pci,netdev=net0,romfile=".to_owned());
        if self.watchdog {
            push("-device", "i6300esb".to_owned());
            push("-watchdog-action", "reset".to_owned());
        }
        self.disk_arguments(snapshot, &mut push)?;
        let mut args_done = vec!["-nodefaults".to_owned()];
        args_done.append(&mut args);
        args_done.extend(self.extra.iter().cloned());
        Ok(args_done)
    }

    fn serial_arguments(&self, push: &mut impl FnMut(&str, String)) {
        let chardev = match &self.serial {
            Serial::Terminal => {
                push("-serial", "mon:stdio".to_owned());
                return;
            }
            Serial::File(file) => format!("file,id=con0,path={}", path(file)),
            Serial::Socket { path: socket, log } => {
                let log = log
                    .as_ref()
                    .map(|log| format!(",logfile={}", path(log)))
                    .unwrap_or_default();
                format!(
                    "socket,id=con0,path={},server=on,wait=off{log}",
                    path(socket)
                )
            }
        };
        push("-chardev", chardev);
        push("-serial", "chardev:con0".to_owned());
    }

    fn disk_arguments(&self, snapshot: &str, push: &mut impl FnMut(&str, String)) -> Result<()> {
        match self.bus {
            Bus::Usb => push("-device", "qemu-xhci,id=xhci".to_owned()),
            Bus::Ahci if self.architecture == Architecture::Aarch64 => {
                push("-device", "ich9-ahci,id=ide".to_owned());
            }
            _ => {}
        }
        let sectors = match (self.sector_size, self.bus) {
            (512, _) => String::new(),
            (_, Bus::Ahci) => {
                bail!(
                    "QEMU's AHCI disks have 512-byte sectors only; use --bus nvme, virtio or usb for 4096"
                )
            }
            (size, _) => format!(",logical_block_size={size},physical_block_size={size}"),
        };
        for (n, disk) in self.disks.iter().enumerate() {
            let image = match &self.record {
                Some(log) if n == 0 => {
                    if disk.qcow2 || self.ephemeral {
                        bail!("writes can be recorded of a raw image that is written, no other");
                    }
                    format!(
                        "driver=blklogwrites,file.driver=file,file.filename={},log.driver=file,log.filename={}",
                        path(&disk.path),
                        path(log)
                    )
                }
                _ => {
                    let format = if disk.qcow2 { "qcow2" } else { "raw" };
                    format!("format={format}{snapshot},file={}", path(&disk.path))
                }
            };
            push(
                "-drive",
                format!("if=none,id=disk{n},discard=unmap,{image}"),
            );
            let order = n + 1;
            let device = match self.bus {
                Bus::Virtio => format!("virtio-blk-pci,drive=disk{n},bootindex={order}{sectors}"),
                Bus::Nvme => {
                    format!("nvme,drive=disk{n},serial=sternpost{n},bootindex={order}{sectors}")
                }
                Bus::Ahci => format!("ide-hd,drive=disk{n},bus=ide.{n},bootindex={order}"),
                Bus::Usb => {
                    format!(
                        "usb-storage,bus=xhci.0,drive=disk{n},bootindex={order},removable=on{sectors}"
                    )
                }
            };
            push("-device", device);
        }
        Ok(())
    }
}

/// The QEMU program for an architecture.
#[must_use]
pub fn program(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "qemu-system-x86_64",
        Architecture::Aarch64 => "qemu-system-aarch64",
    }
}

/// The firmware's code and the template of its variables, as paths in the tools tree.
#[must_use]
pub fn firmware(architecture: Architecture) -> (&'static str, &'static str) {
    match architecture {
        Architecture::X86_64 => (
            "/usr/share/OVMF/OVMF_CODE_4M.fd",
            "/usr/share/OVMF/OVMF_VARS_4M.fd",
        ),
        Architecture::Aarch64 => (
            "/usr/share/AAVMF/AAVMF_CODE.fd",
            "/usr/share/AAVMF/AAVMF_VARS.fd",
        ),
    }
}

/// A path as a value in QEMU's option syntax, where a comma is doubled.
fn path(path: &std::path::Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            architecture: Architecture::X86_64,
            disks: vec![Disk {
                path: "/x/disk,1.raw".into(),
                qcow2: false,
            }],
            bus: Bus::Virtio,
            sector_size: 512,
            ephemeral: false,
            record: None,
            firmware: "/f/code".into(),
            variables: "/f/vars".into(),
            accelerator: Accelerator::Tcg,
            memory: 1024,
            cpus: 2,
            serial: Serial::File("/x/console".into()),
            qmp: None,
            ssh: Some(2222),
            watchdog: true,
            extra: vec!["-no-reboot".into()],
        }
    }

    #[test]
    fn a_machine_becomes_one_command_line() {
        let args = machine().arguments().unwrap().join(" ");
        for part in [
            "-nodefaults",
            "-accel tcg,thread=multi",
            "file=/x/disk,,1.raw",
            "hostfwd=tcp:127.0.0.1:2222-:22",
            "-device i6300esb",
            "virtio-blk-pci,drive=disk0,bootindex=1",
        ] {
            assert!(args.contains(part), "{part} is missing in {args}");
        }
        assert!(args.ends_with("-no-reboot"));
        assert!(!args.contains("snapshot"));
    }

    #[test]
    fn sectors_of_4096_bytes_are_asked_of_every_disk() {
        let mut machine = machine();
        machine.sector_size = 4096;
        machine.bus = Bus::Nvme;
        machine.disks.push(machine.disks[0].clone());
        let args = machine.arguments().unwrap().join(" ");
        assert_eq!(args.matches("logical_block_size=4096").count(), 2);
        machine.bus = Bus::Ahci;
        assert!(machine.arguments().is_err());
    }

    #[test]
    fn the_boot_disk_alone_is_recorded() {
        let mut machine = machine();
        machine.disks.push(machine.disks[0].clone());
        machine.record = Some("/x/writes.log".into());
        let args = machine.arguments().unwrap().join(" ");
        assert_eq!(args.matches("blklogwrites").count(), 1);
        assert!(args.contains("log.filename=/x/writes.log"), "{args}");
        machine.ephemeral = true;
        assert!(machine.arguments().is_err());
    }

    #[test]
    fn an_ephemeral_machine_writes_nothing_back() {
        let mut machine = machine();
        machine.ephemeral = true;
        let args = machine.arguments().unwrap().join(" ");
        assert_eq!(args.matches("snapshot=on").count(), 2, "disk and variables");
    }
}
