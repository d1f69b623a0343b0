//! `make demo`: an appliance's life, told in an emulated machine with real artefacts.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Parser;
use qemu_tests::artefacts::Artefacts;
use qemu_tests::disk::Disk;
use qemu_tests::machine::{Machine, Options as MachineOptions, boot_limit};
use qemu_tests::scenario::{Architecture, Context, Scenario};
use qemu_tests::server::Server;
use qemu_tests::ssh::USER;

/// Tells an appliance's story in an emulated machine: first boot, upgrade, an upgrade that is refused.
///
/// Builds image versions 1, 2 and 3 with imager, boots version 1 from its disk image, upgrades it to version 2 over
/// HTTP, and has the health gate refuse version 3. What it made stays in the directory that it prints at the end.
#[derive(Parser)]
struct Arguments {
    /// Recipe in recipes/images; `kubeadm` and `minimal` mean their variants for virtual machines.
    #[arg(long, default_value = "kubeadm-vm")]
    recipe: String,
    /// x86_64 or aarch64.
    #[arg(long, default_value = "x86_64")]
    arch: String,
    /// The imager program; without it the one beside this program.
    #[arg(long)]
    imager: Option<PathBuf>,
    /// Where keys, images, disks and logs go.
    #[arg(long)]
    directory: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match Story::prepare(&arguments).and_then(|story| story.tell()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How long Kubernetes may take on a slow host; more is a failure.
const KUBERNETES_LIMIT: Duration = Duration::from_secs(20 * 60);
/// The disk of the machine: larger than the image, as disks are.
const DISK_SIZE: u64 = 16 << 30;

struct Story {
    recipe: String,
    workload: Workload,
    architecture: Architecture,
    root: PathBuf,
    directory: PathBuf,
    context: Context,
    began: Instant,
}

impl Story {
    fn prepare(arguments: &Arguments) -> Result<Story> {
        let architecture = match arguments.arch.as_str() {
            "x86_64" => Architecture::X86_64,
            "aarch64" => Architecture::Aarch64,
            other => bail!(
                "`{other}` is no architecture that images are built for; use x86_64 or aarch64"
            ),
        };
        let recipe = match arguments
            .recipe
            .strip_suffix("-vm")
            .unwrap_or(&arguments.recipe)
        {
            name @ ("minimal" | "kubeadm") => format!("{name}-vm"),
            other => bail!("there is no story for the recipe `{other}`; use kubeadm or minimal"),
        };
        let workload = if recipe == "kubeadm-vm" {
            Workload::Deployment
        } else {
            Workload::Service
        };
        let imager = match &arguments.imager {
            Some(imager) => imager.clone(),
            None => std::env::current_exe()
                .context("cannot find this program's directory")?
                .with_file_name("imager"),
        };
        let directory = arguments
            .directory
            .clone()
            .unwrap_or_else(|| qemu_tests::cache_directory().join("demo"))
            .join(format!("{recipe}-{}", architecture.name()));
        let root = qemu_tests::workspace()
            .canonicalize()
            .context("cannot find the workspace")?;
        println!(
            "Sternpost: {recipe} on {}\n\n1  Keys and three images",
            architecture.name()
        );
        let began = Instant::now();
        let artefacts = step("keys", || {
            Artefacts::open(imager, root.clone(), directory.clone())
        })?;
        let scenario = Scenario {
            name: "demo",
            shows: "an appliance's life",
            architecture,
            recipe: "kubeadm-vm",
            gate: false,
            seconds: 1800,
            run: |_| Ok(()),
        };
        let context = Context::new(scenario, directory.join("run"), artefacts)?;
        Ok(Story {
            recipe,
            workload,
            architecture,
            root,
            directory,
            context,
            began,
        })
    }

    fn tell(&self) -> Result<()> {
        let first = self.build("1.0.0")?;
        self.build("2.0.0")?;
        self.build("3.0.0")?;

        println!("\n2  Version 1 boots from its disk image");
        let disk = self
            .context
            .disk(&first.join("disk.raw"), "disk.raw", 512)?;
        disk.grow(DISK_SIZE)?;
        let mut machine = self.first_boot(&disk)?;
        let wrote = self.workload.start(&mut machine, self.architecture)?;

        println!("\n3  Version 2 is installed from an HTTP server");
        self.upgrade(&mut machine)?;
        self.workload.check(&mut machine, &wrote)?;

        println!("\n4  Version 3 is refused by the health gate");
        self.refuse(&mut machine)?;
        self.workload.check(&mut machine, &wrote)?;

        step("switch the machine off", || {
            // The connection ends with the machine, so what ssh says does not matter.
            let _ = machine.run("systemctl poweroff");
            machine.wait_for_power_off(Duration::from_secs(180))
        })?;
        self.finish(&disk);
        Ok(())
    }

    fn out(&self, version: &str) -> PathBuf {
        self.directory.join(version)
    }

    /// Builds one version; version 3 is the demonstration's own variant of the recipe.
    fn build(&self, version: &str) -> Result<PathBuf> {
        let recipes = if version.starts_with('3') {
            "recipes/demo"
        } else {
            "recipes/images"
        };
        let recipe = self
            .root
            .join(recipes)
            .join(format!("{}.toml", self.recipe));
        let profile = self.write_profile()?;
        let out = self.out(version);
        step(&format!("image {version}"), || {
            let mut command = Command::new(self.context.artefacts().imager());
            command.arg("build").arg(&recipe).args([
                "--arch",
                self.architecture.name(),
                "--image-version",
                version,
            ]);
            command
                .arg("--profile")
                .arg(&profile)
                .arg("--keys")
                .arg(self.context.artefacts().keys_for(&recipe)?);
            command.arg("--out").arg(&out);
            run(
                &mut command,
                &self.directory.join(format!("build-{version}.log")),
            )
        })?;
        if let Ok(bundle) = std::fs::metadata(out.join("bundle.spb")) {
            said(&format!("bundle {:.1} MB", bundle.len() as f64 / 1e6));
        }
        Ok(out)
    }

    fn write_profile(&self) -> Result<PathBuf> {
        let key = std::fs::read_to_string(self.directory.join("ssh-key.pub"))
            .context("cannot read the SSH key")?;
        let mut text = format!(
            "version: 1\nhostname: edge-1\nusers:\n  - name: {USER}\n    admin: true\n    ssh_keys:\n      - {}\n",
            key.trim()
        );
        text.push_str(self.workload.profile());
        let path = self.directory.join("profile.yaml");
        if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(path)
    }

    fn first_boot(&self, disk: &Disk) -> Result<Machine<'_>> {
        let options = MachineOptions {
            memory: self.workload.memory(),
            ..MachineOptions::default()
        };
        let mut machine = step("firmware to loader", || {
            let mut machine = self.context.start(&[disk], options)?;
            machine.wait_for_boot(Duration::from_secs(120))?;
            Ok(machine)
        })?;
        self.wait_until_good(&mut machine, "1.0.0")?;
        Ok(machine)
    }

    /// From the loader's first line to the verdict of the health gate.
    fn wait_until_good(&self, machine: &mut Machine<'_>, version: &str) -> Result<()> {
        step("loader to login", || {
            machine.wait_for_ssh(boot_limit(self.architecture))
        })?;
        let status = step(&format!("{}, marked good", self.workload.well()), || {
            let deadline = Instant::now() + self.workload.limit();
            loop {
                // A machine that is busy may not answer once.
                if let Ok(status) = machine.status() {
                    match status["health"]["verdict"].as_str() {
                        Some("healthy") if status["booted"]["good"] == true => return Ok(status),
                        Some("unhealthy") => bail!("not well: {}", status["health"]["reason"]),
                        _ => {}
                    }
                }
                if Instant::now() >= deadline {
                    bail!(
                        "no verdict in time; `bootctl status` said:\n{}",
                        machine.run("bootctl status")?
                    );
                }
                std::thread::sleep(Duration::from_secs(2));
            }
        })?;
        if status["booted"]["version"] != version {
            bail!(
                "version {} runs where {version} was to",
                status["booted"]["version"]
            );
        }
        if let Some(milliseconds) = status["health"]["verdict_ms"].as_u64() {
            said(&format!(
                "{} s after the kernel's start",
                milliseconds / 1000
            ));
        }
        self.workload.show(machine)
    }

    fn upgrade(&self, machine: &mut Machine<'_>) -> Result<()> {
        let server = Server::start(&self.out("2.0.0"))?;
        self.install_now(machine, &server.url("bundle.spb"))?;
        said(&format!(
            "{:.1} MB were fetched",
            server.sent() as f64 / 1e6
        ));
        self.wait_until_good(machine, "2.0.0")
    }

    /// Installs, activates and reboots; ends when the loader has started again.
    fn install_now(&self, machine: &mut Machine<'_>, url: &str) -> Result<()> {
        let command = format!("bootctl install --now {url}");
        step(&command, || {
            // The reboot ends the connection before the command has.
            let ended = machine.run_within(&command, Duration::from_secs(15 * 60));
            machine
                .wait_for_boot(Duration::from_secs(180))
                .map_err(|error| match ended {
                    Err(refused) => refused,
                    Ok(_) => error,
                })
        })
    }

    fn refuse(&self, machine: &mut Machine<'_>) -> Result<()> {
        let server = Server::start(&self.out("3.0.0"))?;
        let url = server.url("bundle.spb");
        self.install_now(machine, &url)?;
        step("version 3 starts, is found unhealthy and given up", || {
            machine.wait_for_boot(self.workload.limit())
        })?;
        self.wait_until_good(machine, "2.0.0")?;
        show(machine, "bootctl status")?;
        show(machine, "bootctl history")?;
        let status = machine.status()?;
        let refused = ["a", "b"]
            .iter()
            .any(|slot| status["slots"][slot]["quarantined"] == true);
        if !refused {
            bail!("version 3 is not in quarantine: {status:#}");
        }
        let (code, words) = step("a second install of version 3", || {
            machine.run_refused(&format!("bootctl install {url}"), Duration::from_secs(120))
        })?;
        print_inside(&words);
        if code != 3 {
            bail!("the exit code is {code}; a refusal has 3");
        }
        Ok(())
    }

    fn finish(&self, disk: &Disk) {
        let artefacts = self.context.artefacts();
        println!(
            "\n5  All of it took {}. What is left:",
            minutes(self.began.elapsed())
        );
        println!(
            "   images, bundles, manifests  {}/{{1,2,3}}.0.0",
            self.directory.display()
        );
        println!("   the machine's disk          {}", disk.path().display());
        println!(
            "   its console                 {}/console.log",
            self.context.directory().display()
        );
        println!("\n   Start it again and look around (it runs version 2; Ctrl-A X ends it):");
        println!(
            "     {} run {} --arch {} --memory {} --ssh 2222",
            artefacts.imager().display(),
            disk.path().display(),
            self.architecture.name(),
            self.workload.memory()
        );
        println!(
            "     ssh -i {}/ssh-key -p 2222 {USER}@127.0.0.1",
            self.directory.display()
        );
        if self.workload == Workload::Deployment {
            println!("     sudo {KUBECTL} get nodes,pods -A");
        }
    }
}

const KUBECTL: &str = "kubectl --kubeconfig /etc/kubernetes/admin.conf";
const DIARY: &str = "/var/lib/demo/diary";

/// What the machine is there for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Workload {
    /// A pod that writes to a volume.
    Deployment,
    /// A file below /var.
    Service,
}

impl Workload {
    fn profile(self) -> &'static str {
        match self {
            Self::Deployment => {
                "kubernetes:\n  distribution: kubeadm\n  role: init\nhealth:\n  deadline: 15m\n"
            }
            Self::Service => "health:\n  deadline: 5m\n",
        }
    }

    fn memory(self) -> u32 {
        match self {
            Self::Deployment => 4096,
            Self::Service => 1024,
        }
    }

    fn limit(self) -> Duration {
        match self {
            Self::Deployment => KUBERNETES_LIMIT,
            Self::Service => Duration::from_secs(6 * 60),
        }
    }

    fn well(self) -> &'static str {
        match self {
            Self::Deployment => "login to node Ready",
            Self::Service => "login to healthy",
        }
    }

    fn show(self, machine: &mut Machine<'_>) -> Result<()> {
        match self {
            Self::Deployment => show(machine, &format!("{KUBECTL} get nodes,pods -A")),
            Self::Service => show(machine, "bootctl health"),
        }
    }

    /// Starts it; gives the first line that it wrote.
    fn start(self, machine: &mut Machine<'_>, architecture: Architecture) -> Result<String> {
        step("a workload writes to a volume", || {
            match self {
                Self::Deployment => {
                    machine.run(&format!(
                        "{KUBECTL} apply -f - <<'END'\n{}\nEND",
                        diary(architecture)
                    ))?;
                    machine.run_within(
                        &format!("{KUBECTL} rollout status deployment/diary --timeout=10m"),
                        KUBERNETES_LIMIT,
                    )?;
                }
                Self::Service => {
                    machine.run(&format!(
                        "mkdir -p /var/lib/demo && date -u +%FT%TZ >> {DIARY} && sync"
                    ))?;
                }
            }
            let deadline = Instant::now() + Duration::from_secs(60);
            loop {
                let line = machine
                    .run(&format!("head -n 1 {DIARY} || true"))?
                    .trim()
                    .to_owned();
                if !line.is_empty() {
                    return Ok(line);
                }
                if Instant::now() >= deadline {
                    bail!("the workload writes nothing to {DIARY}");
                }
                std::thread::sleep(Duration::from_secs(2));
            }
        })
    }

    /// It is still there, with what it wrote first, and goes on.
    fn check(self, machine: &mut Machine<'_>, wrote: &str) -> Result<()> {
        step("the workload and its data are still there", || {
            if self == Self::Deployment {
                machine.run_within(
                    &format!("{KUBECTL} rollout status deployment/diary --timeout=10m"),
                    KUBERNETES_LIMIT,
                )?;
            }
            let first = machine.run(&format!("head -n 1 {DIARY}"))?;
            if first.trim() != wrote {
                bail!(
                    "the first line of the diary is {:?}, it was {wrote:?}",
                    first.trim()
                );
            }
            Ok(())
        })?;
        let lines = machine.run(&format!("wc -l < {DIARY}"))?;
        said(&format!("{} entries since {wrote}", lines.trim()));
        Ok(())
    }
}

/// A pod that writes the time to a volume. No registry is needed: its program is the root's own shell.
fn diary(architecture: Architecture) -> String {
    let mut folders = vec![("usr", "/usr", "/usr"), ("lib", "/usr/lib", "/lib")];
    if architecture == Architecture::X86_64 {
        folders.push(("lib64", "/usr/lib64", "/lib64"));
    }
    let (mut mounts, mut volumes) = (String::new(), String::new());
    for (name, host, inside) in folders {
        mounts.push_str(&format!(
            "        - {{name: {name}, mountPath: {inside}, readOnly: true}}\n"
        ));
        volumes.push_str(&format!(
            "      - {{name: {name}, hostPath: {{path: {host}}}}}\n"
        ));
    }
    format!(
        "apiVersion: v1
kind: PersistentVolume
metadata: {{name: diary}}
spec:
  capacity: {{storage: 1Mi}}
  accessModes: [ReadWriteOnce]
  storageClassName: ''
  hostPath: {{path: /var/lib/demo, type: DirectoryOrCreate}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: diary}}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: ''
  volumeName: diary
  resources: {{requests: {{storage: 1Mi}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: diary}}
spec:
  strategy: {{type: Recreate}}
  selector: {{matchLabels: {{app: diary}}}}
  template:
    metadata: {{labels: {{app: diary}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: diary
        image: registry.k8s.io/pause:3.10.2
        imagePullPolicy: Never
        command: [/usr/bin/sh, -c, 'while :; do date -u +%FT%TZ >> /data/diary; sync /data/diary; sleep 5; done']
        volumeMounts:
        - {{name: data, mountPath: /data}}
{mounts}      volumes:
      - {{name: data, persistentVolumeClaim: {{claimName: diary}}}}
{volumes}"
    )
}

/// One line: what is done, and how long it took.
fn step<T>(what: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    print!("   {what:<56} ");
    let _ = std::io::stdout().flush();
    let began = Instant::now();
    let result = action();
    let seconds = began.elapsed().as_secs_f64();
    match &result {
        Ok(_) => println!("{seconds:7.1} s"),
        Err(_) => println!("failed after {seconds:.1} s"),
    }
    result.map_err(|error| error.context(what.to_owned()))
}

/// A fact below the step that it belongs to.
fn said(text: &str) {
    println!("     {text}");
}

fn show(machine: &mut Machine<'_>, command: &str) -> Result<()> {
    let text = machine.run(command)?;
    println!("\n     # {command}");
    print_inside(&text);
    println!();
    Ok(())
}

fn print_inside(text: &str) {
    for line in text.trim_end().lines() {
        println!("     {line}");
    }
}

fn minutes(time: Duration) -> String {
    format!("{} min {} s", time.as_secs() / 60, time.as_secs() % 60)
}

/// Runs a program whose output goes into a log; the end of it is shown if it fails.
fn run(command: &mut Command, log: &Path) -> Result<()> {
    let file =
        std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("cannot run {command:?}"))?;
    if status.success() {
        return Ok(());
    }
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines
        .get(lines.len().saturating_sub(20)..)
        .unwrap_or_default()
        .join("\n");
    Err(anyhow!(
        "{command:?} ended with {status} ({}):\n{tail}",
        log.display()
    ))
}
