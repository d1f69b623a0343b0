//! What each tool calls the architectures that an image can be built for.

pub use boot_core::Architecture;

/// An architecture's names beside our own, which is also the kernel's ([`Architecture::name`]).
pub trait Names {
    /// Debian's, and Go's (`GOARCH`): `amd64`, `arm64`.
    fn debian(self) -> &'static str;

    /// UEFI's short name, as in `BOOTX64.EFI` and `linuxx64.efi.stub`: `x64`, `aa64`.
    fn efi(self) -> &'static str;
}

impl Names for Architecture {
    fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    fn efi(self) -> &'static str {
        match self {
            Self::X86_64 => "x64",
            Self::Aarch64 => "aa64",
        }
    }
}

/// An architecture by any of its names, as somebody gives it to a command.
///
/// # Errors
/// It is none that images are built for.
pub fn parse(text: &str) -> Result<Architecture, String> {
    let known = |it: &Architecture| [it.name(), it.debian(), it.efi()].contains(&text);
    Architecture::ALL.into_iter().find(known).ok_or_else(|| {
        format!("`{text}` is not an architecture that images are built for; use x86_64 or aarch64")
    })
}
