//! QEMU's debugger socket, as far as it takes to put other instructions where a kernel is about to go on: the way to
//! bring about what no program inside can. The protocol is GDB's (its manual, "The GDB Remote Serial Protocol").

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How long QEMU may take to answer.
const ANSWER: Duration = Duration::from_secs(20);
/// How long a processor may stay in user programs.
const IN_KERNEL: Duration = Duration::from_secs(60);
/// Where `rip` lies in the registers: after sixteen general ones, eight bytes each.
const RIP: usize = 16 * 8;
/// Where the kernel's half of the addresses begins.
const KERNEL: u64 = 0xffff_8000_0000_0000;

/// Where QEMU listens for a debugger.
#[derive(Debug)]
pub struct Socket(PathBuf);

impl Socket {
    /// One of this name, which no other machine uses at the same time.
    #[must_use]
    pub fn new(name: &str) -> Socket {
        // Short: a socket's path has at most 107 bytes.
        Socket(std::env::temp_dir().join(format!("sternpost-{}-{name}.gdb", std::process::id())))
    }

    /// What QEMU has to be told.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let listen = format!("unix:{},server=on,wait=off", self.0.display());
        vec!["-gdb".to_owned(), listen]
    }

    /// Stops an x86_64 machine while its kernel runs, puts `instructions` where its first processor goes on, and lets it
    /// run again.
    ///
    /// # Errors
    /// QEMU cannot be reached or refuses, or the processor does not get into the kernel.
    pub fn patch_kernel(&self, instructions: &[u8]) -> Result<()> {
        let deadline = Instant::now() + IN_KERNEL;
        while Instant::now() < deadline {
            let mut stopped = Debugger::attach(&self.0)?;
            let at = stopped.instruction_pointer()?;
            if at >= KERNEL {
                let length = instructions.len();
                let bytes = hex::encode(instructions);
                let done = stopped.ask(&format!("M{at:x},{length:x}:{bytes}"))?;
                if done != "OK" {
                    bail!("QEMU does not write to {at:#x}: {done}");
                }
                return stopped.detach();
            }
            stopped.detach()?;
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the processor was never seen in the kernel")
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A connection, which stops the machine.
struct Debugger(BufReader<UnixStream>);

impl Debugger {
    fn attach(socket: &Path) -> Result<Debugger> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot reach QEMU's debugger at {}", socket.display()))?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut debugger = Debugger(BufReader::new(stream));
        // Whether and why it stands still: it does now.
        debugger.ask("?")?;
        Ok(debugger)
    }

    /// One packet and its answer, `$TEXT#SUM` each, both acknowledged by a `+`.
    fn ask(&mut self, request: &str) -> Result<String> {
        let sum = request.bytes().fold(0_u8, u8::wrapping_add);
        write!(self.0.get_mut(), "${request}#{sum:02x}").context("cannot write to QEMU")?;
        let mut before = Vec::new();
        self.0.read_until(b'$', &mut before)?;
        let mut answer = Vec::new();
        self.0.read_until(b'#', &mut answer)?;
        self.0.read_exact(&mut [0; 2])?;
        if answer.pop() != Some(b'#') {
            bail!("QEMU's debugger ended in the middle of an answer");
        }
        self.0.get_mut().write_all(b"+")?;
        String::from_utf8(answer).context("QEMU's debugger answers with no text")
    }

    fn instruction_pointer(&mut self) -> Result<u64> {
        let registers = hex::decode(self.ask("g")?).context("registers that are no hex")?;
        let rip = registers
            .get(RIP..)
            .and_then(|rest| rest.first_chunk::<8>())
            .context("too few registers")?;
        Ok(u64::from_le_bytes(*rip))
    }

    /// Lets the machine run again.
    fn detach(mut self) -> Result<()> {
        self.ask("D").map(drop)
    }
}
