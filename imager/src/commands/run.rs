//! `imager run`.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{Context, print};
use crate::arch::{self, Architecture};
use crate::output::gpt;
use crate::run::accelerator;
use crate::run::qemu::{self, Accelerator, Bus, Disk, Machine, Serial};
use crate::workshop::durable;
use crate::workshop::tools::Tools;

/// Boot a disk image in an emulated machine.
///
/// The machine has real UEFI firmware and its serial console on this terminal: ctrl-a x ends it,
/// ctrl-a c reaches QEMU's monitor. Unless --ephemeral is given, what the machine writes stays in the
/// image. QEMU and the firmware come from the tools tree.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The disk image (raw or qcow2)
    image: PathBuf,
    /// The machine's architecture [default: that of the loader on the disk]
    #[arg(long, value_parser = arch::parse)]
    arch: Option<Architecture>,
    /// The firmware's variables; made from the firmware's template when it is not there
    /// [default: the image's name with .vars]
    #[arg(long, value_name = "FILE")]
    firmware_vars: Option<PathBuf>,
    /// Bus of the disks
    #[arg(long, value_enum, default_value_t = Bus::Virtio)]
    bus: Bus,
    /// Bytes in a logical sector [default: what the partition table was written for]
    #[arg(long, value_name = "BYTES", value_parser = super::build::parse_sector_size)]
    sector_size: Option<u32>,
    /// One more disk; may be repeated
    #[arg(long, value_name = "FILE")]
    disk: Vec<PathBuf>,
    /// Throw away at the end what the machine wrote
    #[arg(long)]
    ephemeral: bool,
    /// Record every write and every flush of the boot disk in this file, as the kernel's dm-log-writes
    /// does (raw images); a power cut at any moment can be made from it
    #[arg(long, value_name = "FILE", conflicts_with = "ephemeral")]
    record_writes: Option<PathBuf>,
    /// Make the raw image this large first (a sparse file: 8G costs nothing)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    grow: Option<u64>,
    /// Memory in MiB
    #[arg(long, default_value_t = 2048, value_name = "MIB")]
    memory: u32,
    /// Virtual processors
    #[arg(long, default_value_t = 2, value_name = "N")]
    cpus: u32,
    /// kvm or tcg [default: kvm where it works]
    #[arg(long, value_enum)]
    accel: Option<Accelerator>,
    /// Write the serial console to this file and not the terminal
    #[arg(long, value_name = "FILE")]
    serial: Option<PathBuf>,
    /// Serve the serial console on this UNIX socket (--serial then keeps a log)
    #[arg(long, value_name = "SOCKET")]
    serial_socket: Option<PathBuf>,
    /// Listen for QMP on this UNIX socket
    #[arg(long, value_name = "SOCKET")]
    qmp: Option<PathBuf>,
    /// Forward this port of 127.0.0.1 to the machine's SSH
    #[arg(long, value_name = "PORT")]
    ssh: Option<u16>,
    /// Give the machine a hardware watchdog, i6300esb; Debian's cloud kernel for ARM64 has no driver of it
    #[arg(long)]
    watchdog: bool,
    /// Print the QEMU command line and do not start it
    #[arg(long)]
    print: bool,
    /// Handed to QEMU as they are
    #[arg(last = true, value_name = "QEMU ARGS")]
    extra: Vec<String>,
}

fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 1 << 10),
        Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
        Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| format!("`{text}` is not a size such as 8G"))
}

pub(super) fn run(context: &Context, args: Args) -> Result<()> {
    // Before any tool is fetched for it.
    open_disk(&args.image)?;
    let workshop = context.workshop()?;
    context.block_on(async {
        let tools = workshop.tools().await?;
        let machine = machine(&workshop, tools, &args)?;
        let arguments = machine.arguments()?;
        if args.print {
            print(format_args!(
                "{} {}\n",
                machine.program(),
                shell_words(&arguments)
            ))?;
            return Ok(());
        }
        workshop.cache().outlive_exec()?;
        let mut command = tools.command(machine.program())?.into_std();
        let error = command.args(arguments).exec();
        Err(error).with_context(|| format!("starting {}", machine.program()))
    })
}

fn machine(workshop: &crate::workshop::Workshop, tools: &Tools, args: &Args) -> Result<Machine> {
    let disks: Vec<Disk> = std::iter::once(&args.image)
        .chain(&args.disk)
        .map(|path| open_disk(path))
        .collect::<Result<_>>()?;
    let qcow2 = disks.first().is_some_and(|disk| disk.qcow2);
    if let Some(size) = args.grow {
        grow(&args.image, qcow2, size)?;
    }
    let architecture = match args.arch {
        Some(architecture) => architecture,
        None if qcow2 => Architecture::OWN,
        None => crate::inspect::architecture_of_disk(&args.image).unwrap_or(Architecture::OWN),
    };
    let sector_size = match args.sector_size {
        Some(size) => size,
        None if qcow2 => 512,
        None => sector_size_of(&args.image)?,
    };
    let (code, template) = qemu::firmware(architecture);
    let firmware = tools.path(code);
    let template = tools.path(template);
    let variables = match &args.firmware_vars {
        Some(path) => path.clone(),
        None if args.ephemeral => template.clone(),
        None => args.image.with_extension("vars"),
    };
    if !variables.exists() && !args.print {
        fs::read(&template)
            .and_then(|bytes| durable::write(&variables, &bytes))
            .with_context(|| {
                format!(
                    "copying the firmware's variables to {}",
                    variables.display()
                )
            })?;
    }
    if let Some(log) = &args.record_writes {
        // QEMU wants it to be there.
        fs::File::create(log).with_context(|| format!("making {}", log.display()))?;
    }
    let serial = match (&args.serial_socket, &args.serial) {
        (Some(socket), log) => Serial::Socket {
            path: socket.clone(),
            log: log.clone(),
        },
        (None, Some(file)) => Serial::File(file.clone()),
        (None, None) => Serial::Terminal,
    };
    Ok(Machine {
        architecture,
        disks,
        bus: args.bus,
        sector_size,
        ephemeral: args.ephemeral,
        record: args.record_writes.clone(),
        firmware,
        variables,
        accelerator: match args.accel {
            Some(accelerator) => accelerator,
            None => accelerator::best(tools, workshop.cache(), architecture),
        },
        memory: args.memory,
        cpus: args.cpus,
        serial,
        qmp: args.qmp.clone(),
        ssh: args.ssh,
        watchdog: args.watchdog,
        extra: args.extra.clone(),
    })
}

fn open_disk(path: &Path) -> Result<Disk> {
    let what = || format!("opening the disk image {}", path.display());
    let mut start = [0; 8];
    let length = fs::File::open(path)
        .and_then(|file| file.take(8).read(&mut start))
        .with_context(what)?;
    if length < 8 {
        bail!("{} is too short to be a disk image", path.display());
    }
    if start == *b"SPBUNDLE" {
        bail!(
            "{} is a bundle, which a running machine installs; name a disk image, such as disk.raw",
            path.display()
        );
    }
    Ok(Disk {
        path: path.canonicalize().with_context(what)?,
        qcow2: start.starts_with(b"QFI\xfb"),
    })
}

fn grow(path: &Path, qcow2: bool, size: u64) -> Result<()> {
    if qcow2 {
        bail!(
            "--grow works on raw images; grow {} with qemu-img resize",
            path.display()
        );
    }
    let what = || format!("growing {}", path.display());
    let file = fs::File::options()
        .write(true)
        .open(path)
        .with_context(what)?;
    if file.metadata().with_context(what)?.len() < size {
        file.set_len(size).with_context(what)?;
    }
    Ok(())
}

/// The sector size that the partition table was written for; 512 where there is none.
fn sector_size_of(path: &Path) -> Result<u32> {
    let file = fs::File::open(path)
        .with_context(|| format!("reading the disk image {}", path.display()))?;
    Ok(gpt::read(file).map_or(512, |(_, table)| table.sector_size))
}

/// Arguments as a shell would need them.
fn shell_words(arguments: &[String]) -> String {
    let quoted = |word: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,./:+@%".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    arguments.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("8G"), Ok(8 << 30));
        assert_eq!(parse_size("512"), Ok(512));
        assert!(parse_size("G").is_err());
        assert!(parse_size("99999999999999999999").is_err());
    }

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        assert_eq!(
            shell_words(&["a=b".into(), "c d".into(), "it's".into()]),
            r"a=b 'c d' 'it'\''s'"
        );
    }
}
