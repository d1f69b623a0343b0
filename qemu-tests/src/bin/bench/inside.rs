//! What is measured from inside a machine: how long Kubernetes takes, how much memory an installation takes.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use qemu_tests::artefacts::Version;
use qemu_tests::machine::{Machine, Options};
use qemu_tests::scenario::{Architecture, Begins, Context, Scenario};
use qemu_tests::server::Server;

use serde_json::Value;

use crate::boots::{Phase, medians};
use crate::{Bench, picture, table};

/// When the node was Ready, seconds since the kernel's start. Kubernetes notes the time in whole seconds.
const READY: &str = r#"
ready=$(kubectl --kubeconfig /etc/kubernetes/admin.conf get nodes \
    -o 'jsonpath={.items[0].status.conditions[?(@.type=="Ready")].lastTransitionTime}')
echo $(($(date -d "$ready" +%s) - $(sed -n 's/^btime //p' /proc/stat)))
"#;

/// How many of the phases come before the kernel.
const BEFORE_THE_KERNEL: usize = 2;

/// A boot as the machine itself tells it: the loader's counter runs from reset, the others' from the kernel's start.
fn phases(machine: &mut Machine<'_>) -> Result<Vec<Phase>> {
    let handover = machine.json("cat /run/sternpost/handover.json")?;
    let boot = machine.json("cat /run/sternpost/boot.json")?;
    let health = machine.status()?["health"].clone();
    let seconds = |value: &Value, per_second: f64| {
        let number = value.as_f64().context("the machine does not tell when")?;
        anyhow::Ok(number / per_second)
    };
    let loader = seconds(&handover["times"]["start_us"], 1e6)?;
    let kernel = seconds(&handover["times"]["exec_us"], 1e6)?;
    let agent = seconds(&boot["timeline"]["agent_start_us"], 1e6)?;
    let root = seconds(&boot["timeline"]["free_us"], 1e6)?;
    let userland = seconds(&health["started_ms"], 1e3)?;
    // A node that was Ready before, and was never seen otherwise, keeps that time: then the verdict, some seconds later.
    let ready = match number(&machine.run(READY)?) {
        Ok(ready) => ready,
        Err(_) => seconds(&health["verdict_ms"], 1e3)?,
    };
    let phase = |name, seconds| Phase { name, seconds };
    Ok(vec![
        phase("firmware", loader),
        phase("loader", kernel - loader),
        phase("kernel to its first process", agent),
        phase("initramfs to switch-root", root - agent),
        phase("systemd to bootctl serve", userland - root),
        phase("Kubernetes to node Ready", ready - userland),
    ])
}

/// The most memory that an installation had, in KiB.
fn peak(url: &str) -> String {
    format!(
        "bootctl install {url} >/dev/null 2>&1 & pid=$!
while kill -0 $pid 2>/dev/null; do
    sed -nE 's/^VmHWM:[[:space:]]*([0-9]+) kB/\\1/p' /proc/$pid/status 2>/dev/null
    sleep 0.1
done | sort -n | tail -n 1
wait $pid"
    )
}

impl Bench {
    /// From power-on to node Ready, at the first boot, which makes the cluster, and at the next.
    pub(crate) fn kubernetes(
        &self,
        architecture: Architecture,
        pictures: Option<&Path>,
    ) -> Result<()> {
        let image = self
            .artefacts
            .recipe("kubeadm-vm", architecture, Version::First, 512)?;
        let (mut first, mut next) = (Vec::new(), Vec::new());
        for _ in 0..self.runs {
            let context = self.context("kubernetes", architecture)?;
            let disk = context.disk(&image.disk(), "disk.raw", 512)?;
            disk.grow(16 << 30)?;
            for boots in [&mut first, &mut next] {
                let options = Options {
                    memory: 4096,
                    ..Options::default()
                };
                let mut machine = context.start(&[&disk], options)?;
                machine.wait_for_boot(machine.boot_limit())?;
                machine.wait_until_good(Version::First.number())?;
                boots.push(phases(&mut machine)?);
                machine.power_off()?;
            }
        }
        let name = architecture.name();
        println!("\nBoots of kubeadm-vm, {name}, medians of {}\n", self.runs);
        let columns = [
            ("first boot", medians(first.iter())),
            ("next boot", medians(next.iter())),
        ];
        table(&columns);
        let ready = |(_, phases): &(&str, Vec<Phase>)| {
            let since_kernel = phases.iter().skip(BEFORE_THE_KERNEL);
            since_kernel.map(|phase| phase.seconds).sum::<f64>()
        };
        let [first, next] = columns.each_ref().map(ready);
        println!("\nkernel start to node Ready: {first:.0} s, {next:.0} s");
        if let Some(directory) = pictures {
            picture::write(&directory.join(format!("kubernetes-{name}.svg")), &columns)?;
        }
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
            begins: Begins::PowerOn,
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
