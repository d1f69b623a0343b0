//! systemd's UEFI stub, the front of every UKI, made deaf to SMBIOS.
//!
//! The stub appends to the command line what an OEM string of SMBIOS says after
//! `io.systemd.stub.kernel-cmdline-extra=`, under Secure Boot as well. Whoever describes the machine to its firmware (a
//! hypervisor, a vendor's tool that writes such strings) could so start a program of their own before the agent and
//! dm-verity have a say. Another name for the string would be as public as this one, so it is not the name that is
//! taken out: the stub knows SMBIOS's entry points by their anchors, and with the anchors changed it finds no entry
//! point, whatever strings there are. The kernel has its own reader; `/sys/class/dmi` stays.
//!
//! What the stub reads beside that, and why it may, is in docs/explanation/boot-chain.md. That was looked up for one
//! version, so another one is refused here until somebody has looked again.

use anyhow::{Context as _, Result, ensure};
use object::LittleEndian;
use object::read::pe::{PeFile, PeFile64};

/// The stub that was read.
const VERSION: &[u8] = b"#### LoaderInfo: systemd-stub 257.";

/// What SMBIOS's entry points begin with, of 64 and of 32 bits, as the stub has them: C's strings.
/// Source: DMTF DSP0134, "System Management BIOS Reference Specification", 5.2.
const ANCHORS: [&[u8]; 2] = [b"_SM3_\0", b"_SM_\0"];

/// The sections of a UKI that are no part of its stub and may know of SMBIOS.
const PAYLOAD: [&[u8]; 3] = [b".linux", b".initrd", b".ucode"];

/// Takes the anchors out, one byte of each.
///
/// # Errors
/// It is another stub than the one that is known, or does not hold each of the anchors exactly once.
pub fn deafen(stub: &mut [u8]) -> Result<()> {
    ensure!(
        places(stub, VERSION).count() == 1,
        "it is not systemd-stub 257: what another version takes from the firmware has to be looked at first \
         (docs/explanation/boot-chain.md, \"Trust\")"
    );
    for anchor in ANCHORS {
        let found: Vec<usize> = places(stub, anchor).collect();
        let [at] = found[..] else {
            anyhow::bail!(
                "it holds `{}` {} times, not once: it reads SMBIOS in a way that is not known, and would take a command \
                 line from there",
                shown(anchor),
                found.len()
            );
        };
        stub[at] = 0;
    }
    ensure_deaf(stub)
}

/// Checks a UKI, or a stub alone.
///
/// # Errors
/// It is no UEFI program, or would find SMBIOS's tables.
pub fn ensure_deaf(uki: &[u8]) -> Result<()> {
    let file: PeFile64<'_> = PeFile::parse(uki).context("it is not a UEFI program")?;
    for section in file.section_table().iter() {
        let name = section.raw_name();
        if PAYLOAD.contains(&name) {
            continue;
        }
        let start = usize::try_from(section.pointer_to_raw_data.get(LittleEndian))?;
        let size = usize::try_from(section.size_of_raw_data.get(LittleEndian))?;
        let bytes = uki
            .get(start..)
            .and_then(|rest| rest.get(..size))
            .context("a section of it ends past the end of the file")?;
        for anchor in ANCHORS {
            ensure!(
                places(bytes, anchor).next().is_none(),
                "its stub looks for `{}` in the firmware's tables: it takes a command line from SMBIOS, which nobody signs",
                shown(anchor)
            );
        }
    }
    Ok(())
}

fn places<'a>(bytes: &'a [u8], what: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    bytes
        .windows(what.len())
        .enumerate()
        .filter(move |(_, window)| *window == what)
        .map(|(at, _)| at)
}

fn shown(anchor: &[u8]) -> String {
    String::from_utf8_lossy(anchor)
        .trim_end_matches('\0')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use boot_core::Architecture;
    use boot_core::test_support::program;

    use super::*;

    /// As it is in the real ones, both architectures'.
    const BOTH: &[u8] = b"IntelTDX    \0_SM3_\0_SM_\0../src/boot/util.c\0";

    fn stub(strings: &[u8]) -> Vec<u8> {
        let known = b"#### LoaderInfo: systemd-stub 257.13-1~deb13u1 ####\0";
        program(Architecture::X86_64, &[known, strings].concat())
    }

    fn refused(strings: &[u8]) -> String {
        let mut stub = stub(strings);
        format!("{:#}", deafen(&mut stub).unwrap_err())
    }

    #[test]
    fn a_stub_with_both_anchors_once_loses_one_byte_of_each() {
        let before = stub(BOTH);
        assert!(ensure_deaf(&before).is_err());
        let mut after = before.clone();
        deafen(&mut after).unwrap();
        let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert_eq!((changed, after.len()), (2, before.len()));
        ensure_deaf(&after).unwrap();
        // It is changed already.
        assert!(deafen(&mut after).is_err());
    }

    #[test]
    fn a_stub_that_spells_it_otherwise_is_refused() {
        assert!(refused(b"").contains("`_SM3_` 0 times"));
        assert!(refused(b"_SM3_\0").contains("`_SM_` 0 times"));
        assert!(refused(b"_SM_\0").contains("`_SM3_` 0 times"));
        assert!(refused(b"_SM3_\0_SM_\0_SM3_\0").contains("`_SM3_` 2 times"));
        assert!(refused(b"_SM3_\0_SM_\0_SM_\0").contains("`_SM_` 2 times"));
        // In UTF-16, and cut short by the end of the file.
        assert!(refused(b"_\0S\0M\x003\0_\0\0\0_SM_\0").contains("`_SM3_` 0 times"));
        assert!(refused(b"_SM_\0_SM3_").contains("`_SM3_` 0 times"));
    }

    #[test]
    fn the_last_bytes_of_the_file_count() {
        let mut at_the_end = stub(b"_SM_\0_SM3_\0");
        deafen(&mut at_the_end).unwrap();
        ensure_deaf(&at_the_end).unwrap();
    }

    #[test]
    fn a_stub_that_nobody_has_read_is_refused() {
        let newer = [b"#### LoaderInfo: systemd-stub 258.1 ####\0", BOTH].concat();
        let mut newer = program(Architecture::X86_64, &newer);
        let said = format!("{:#}", deafen(&mut newer).unwrap_err());
        assert!(said.contains("not systemd-stub 257"), "{said}");
    }

    #[test]
    fn the_kernel_of_a_uki_may_read_smbios_and_its_stub_may_not() {
        let mut uki = program(Architecture::Aarch64, BOTH);
        let name = uki.windows(8).position(|it| it == b".sptrust").unwrap();
        uki[name..name + 8].copy_from_slice(b".linux\0\0");
        ensure_deaf(&uki).unwrap();
        for name_of_stub in [b".rodata\0", b".linux2\0"] {
            uki[name..name + 8].copy_from_slice(name_of_stub);
            assert!(ensure_deaf(&uki).is_err());
        }
        assert!(ensure_deaf(b"no program").is_err());
        let cut = uki.len() - 1;
        assert!(ensure_deaf(&uki[..cut]).is_err());
    }
}
