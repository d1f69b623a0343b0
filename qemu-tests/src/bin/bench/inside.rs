//! What is measured from inside a machine: how long Kubernetes takes, how much memory an installation takes.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use qemu_tests::artefacts::Version;
use qemu_tests::machine::Options;
use qemu_tests::scenario::{Architecture, Context, Scenario};
use qemu_tests::server::Server;

use crate::Bench;
use crate::boots::median_of;

/// When the node was Ready, seconds since the kernel's start. Kubernetes notes the time in whole seconds.
const READY: &str = r#"
ready=$(kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes \
    -o 'jsonpath={.items[0].status.conditions[?(@.type=="Ready")].lastTransitionTime}')
echo $(($(date -d "$ready" +%s) - $(sed -n 's/^btime //p' /proc/stat)))
"#;

/// The most memory that an installation had, in KiB.
fn peak(url: &str) -> String {
    format!(
        "bootctl install {url} >/dev/null 2>&1 & pid=$!
while kill -0 $pid 2>/dev/null; do
    sed -n 's/^VmHWM: *\\([0-9]*\\) kB/\\1/p' /proc/$pid/status 2>/dev/null
    sleep 0.1
done | sort -n | tail -n 1
wait $pid"
    )
}

impl Bench {
    /// Kernel start to node Ready, at the first boot, which makes the cluster, and at the next.
    pub(crate) fn kubernetes(&self, architecture: Architecture) -> Result<()> {
        let image = self
            .artefacts
            .recipe("kubeadm-vm", architecture, Version::First, 512)?;
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            let context = self.context("kubernetes", architecture)?;
            let disk = context.disk(&image.disk(), "disk.raw", 512)?;
            disk.grow(16 << 30)?;
            for times in [&mut first, &mut second] {
                let options = Options {
                    memory: 4096,
                    ..Options::default()
                };
                let mut machine = context.start(&[&disk], options)?;
                machine.wait_for_boot(machine.boot_limit())?;
                machine.wait_until_good(Version::First.number())?;
                times.push(number(&machine.run(READY)?)?);
                machine.power_off()?;
            }
        }
        println!(
            "\nKernel start to node Ready, kubeadm-vm, {}, medians of {}\n\n| first boot | next boot |\n| --- | --- |\n| {} s | {} s |",
            architecture.name(),
            self.runs,
            median_of(first),
            median_of(second)
        );
        Ok(())
    }

    /// Peak memory of `bootctl install` in the machine, for each image.
    pub(crate) fn memory(&self) -> Result<()> {
        println!(
            "\nPeak memory of `bootctl install` (VmHWM), x86_64\n\n| bundle | size | memory |\n| --- | --- | --- |"
        );
        for (recipe, memory) in [("minimal-vm", 1024), ("kubeadm-vm", 4096)] {
            let build = |version| {
                self.artefacts
                    .recipe(recipe, Architecture::X86_64, version, 512)
            };
            let (first, second) = (build(Version::First)?, build(Version::Second)?);
            let context = self.context("memory", Architecture::X86_64)?;
            let disk = context.disk(&first.disk(), "disk.raw", 512)?;
            disk.grow(16 << 30)?;
            let options = Options {
                memory,
                ..Options::default()
            };
            let mut machine = context.start(&[&disk], options)?;
            machine.wait_for_boot(machine.boot_limit())?;
            machine.wait_until_good(Version::First.number())?;
            let server = Server::start(second.directory())?;
            let kib = number(
                &machine.run_within(&peak(&server.url("bundle.spb")), Duration::from_secs(1200))?,
            )?;
            let size = std::fs::metadata(second.bundle())?.len();
            println!(
                "| {recipe} | {:.1} MB | {:.1} MiB |",
                size as f64 / 1e6,
                kib / 1024.0
            );
        }
        Ok(())
    }

    fn context(&self, name: &'static str, architecture: Architecture) -> Result<Context> {
        let scenario = Scenario {
            name,
            shows: "how long it takes",
            architecture,
            recipe: "kubeadm-vm",
            gate: false,
            seconds: 1800,
            run: |_| Ok(()),
        };
        Context::new(scenario, self.directory.join(name), self.artefacts.clone())
    }
}

fn number(printed: &str) -> Result<f64> {
    match printed.trim().parse() {
        Ok(number) if number > 0.0 => Ok(number),
        Ok(number) => bail!("the machine measured {number}, which cannot be"),
        Err(error) => Err(error).with_context(|| format!("the machine printed {printed:?}")),
    }
}
