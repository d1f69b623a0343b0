//! systemd over D-Bus.
//!
//! Over the system bus: what systemd sends on its own socket (`/run/systemd/private`) names a sender
//! that is no unique name, which zbus refuses to read. Tests stand in for systemd on a socket of
//! their own, without a bus. Without a bus, a reboot is still had through systemctl.

use std::path::Path;
use std::time::Duration;

use zbus::Connection;
use zbus::OwnedObjectPath;

use super::clock::Pace;
use super::paths::Paths;
use crate::failure::{Doing, Failure, Result};

/// How long to wait for a connection, and for an answer: a bus that hangs must not keep the health
/// gate from its verdict.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);
/// How often to look at a job, should its signal be lost.
const LOOK: Duration = Duration::from_secs(2);

type ListedUnit = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn reload(&self) -> zbus::Result<()>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;
    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    fn list_units_filtered(&self, states: &[&str]) -> zbus::Result<Vec<ListedUnit>>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn system_state(&self) -> zbus::Result<String>;
    #[zbus(signal)]
    fn job_removed(
        &self,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Unit",
    default_service = "org.freedesktop.systemd1"
)]
trait Unit {
    #[zbus(property(emits_changed_signal = "false"))]
    fn active_state(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn sub_state(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn load_state(&self) -> zbus::Result<String>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn job(&self) -> zbus::Result<(u32, OwnedObjectPath)>;
}

/// A connection to the service manager.
#[derive(Debug, Clone)]
pub(crate) struct Systemd {
    connection: Connection,
    manager: ManagerProxy<'static>,
}

impl Systemd {
    /// Connects to the machine's own, or to what stands in for it.
    pub(crate) async fn of(paths: &Paths, pace: Pace) -> Result<Self> {
        if paths.are_real() {
            Self::connect().await
        } else {
            Self::connect_to(&paths.at("/run/systemd/private"), pace).await
        }
    }

    /// Connects through the system bus.
    pub(crate) async fn connect() -> Result<Self> {
        Self::over(zbus::connection::Builder::system(), Pace::default()).await.map_err(|e| {
            e.doing("connecting to systemd through the system bus")
                .next("run it as root, on a machine whose PID 1 is systemd; systemctl status dbus.socket")
        })
    }

    /// Connects to whoever stands in for systemd on `socket`.
    async fn connect_to(socket: &Path, pace: Pace) -> Result<Self> {
        let doing = || format!("connecting to {}", socket.display());
        // A listening socket on this machine: it answers or refuses at once.
        let stream = std::os::unix::net::UnixStream::connect(socket).doing(doing)?;
        Self::over(zbus::connection::Builder::unix_stream(stream).p2p(), pace)
            .await
            .map_err(|e| e.doing(doing()))
    }

    async fn over(builder: zbus::connection::Builder<'_>, pace: Pace) -> Result<Self> {
        let connecting = async {
            let connection = builder.method_timeout(pace.of(ANSWER)).build().await?;
            let manager = ManagerProxy::new(&connection).await?;
            zbus::Result::Ok(Self {
                connection,
                manager,
            })
        };
        match tokio::time::timeout(pace.of(CONNECT), connecting).await {
            Ok(connected) => connected.map_err(Failure::of),
            Err(_) => Err(Failure::failed(format!(
                "no answer within {} s",
                CONNECT.as_secs()
            ))),
        }
    }

    /// Has systemd read its units again, after files of units were written.
    pub(crate) async fn reload(&self) -> Result<()> {
        self.manager
            .reload()
            .await
            .doing(|| "reloading systemd's units")
    }

    /// Starts `unit` and waits until its job is done. A job that ended otherwise is not the last
    /// word while systemd, or whoever cancelled it, may still start the unit: then its state counts.
    pub(crate) async fn start(&self, unit: &str) -> Result<()> {
        use futures_lite_next::next;
        let doing = || format!("starting {unit}");
        // Without asking, one gets no signals; asking twice is refused.
        let _ = self.manager.subscribe().await;
        let mut removed = self.manager.receive_job_removed().await.doing(doing)?;
        let job = self
            .manager
            .start_unit(unit, "replace")
            .await
            .doing(doing)?;
        let result = loop {
            match tokio::time::timeout(LOOK, next(&mut removed)).await {
                Ok(Some(signal)) => {
                    let args = signal.args().doing(doing)?;
                    if args.job == job {
                        break args.result.clone();
                    }
                }
                Ok(None) => {
                    return Err(Failure::failed("systemd closed the connection").doing(doing()));
                }
                // The signal may have come before we listened: look at the unit itself.
                Err(_) => {
                    let unit_now = self.unit(unit).await.doing(doing)?;
                    if unit_now.job().await.doing(doing)?.0 == 0 {
                        break match unit_now.active_state().await.doing(doing)?.as_str() {
                            "failed" => "failed".to_owned(),
                            _ => "done".to_owned(),
                        };
                    }
                }
            }
        };
        if matches!(result.as_str(), "done" | "skipped") {
            return Ok(());
        }
        while let Some(state) = self.comes_later(unit, &result).await.doing(doing)? {
            if state == "active" {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        Err(Failure::failed(format!("its job ended with \"{result}\""))
            .doing(doing())
            .next(format!("journalctl -b -u {unit}")))
    }

    /// The active state of a unit whose job ended with `result`, if it may still become active, or
    /// is.
    async fn comes_later(&self, unit: &str, result: &str) -> zbus::Result<Option<String>> {
        let state = self.unit(unit).await?.active_state().await?;
        let open = match state.as_str() {
            "active" | "activating" | "reloading" | "refreshing" => true,
            "failed" => false,
            _ => result == "canceled",
        };
        Ok(open.then_some(state))
    }

    async fn unit(&self, name: &str) -> zbus::Result<UnitProxy<'static>> {
        let path = self.manager.load_unit(name).await?;
        UnitProxy::builder(&self.connection)
            .path(path)
            .build()
            .await
    }

    /// The state of a unit: `active`, `failed`, `activating (auto-restart)`, `not found`.
    pub(crate) async fn state_of(&self, name: &str) -> Result<String> {
        let doing = || format!("asking systemd about {name}");
        let unit = self.unit(name).await.doing(doing)?;
        let active = unit.active_state().await.doing(doing)?;
        if active == "active" {
            return Ok(active);
        }
        if unit.load_state().await.doing(doing)? == "not-found" {
            return Ok("not found".into());
        }
        let sub = unit.sub_state().await.doing(doing)?;
        Ok(if sub == active {
            active
        } else {
            format!("{active} ({sub})")
        })
    }

    /// Units that have failed.
    pub(crate) async fn failed(&self) -> Result<Vec<String>> {
        let units = self
            .manager
            .list_units_filtered(&["failed"])
            .await
            .doing(|| "asking systemd for failed units")?;
        Ok(units.into_iter().map(|u| u.0).collect())
    }

    /// Whether the machine is going down.
    pub(crate) async fn stopping(&self) -> bool {
        self.manager
            .system_state()
            .await
            .is_ok_and(|s| s == "stopping")
    }

    /// Begins an orderly reboot; returns at once.
    pub(crate) async fn reboot(&self) -> Result<()> {
        self.manager
            .start_unit("reboot.target", "replace-irreversibly")
            .await
            .map(|_| ())
            .doing(|| "asking systemd to reboot")
    }
}

/// A connection that is made when it is needed, and again after it was lost.
pub(crate) struct Link {
    paths: Paths,
    pace: Pace,
    connection: Option<Systemd>,
}

impl Link {
    pub(crate) fn new(paths: Paths, pace: Pace) -> Self {
        Self {
            paths,
            pace,
            connection: None,
        }
    }

    /// The connection, if there is one or can be.
    pub(crate) async fn get(&mut self) -> Option<Systemd> {
        if self.connection.is_none() {
            match Systemd::of(&self.paths, self.pace).await {
                Ok(systemd) => self.connection = Some(systemd),
                Err(e) => eprintln!("bootctl: {e}"),
            }
        }
        self.connection.clone()
    }

    /// Connects anew the next time.
    pub(crate) fn forget(&mut self) {
        self.connection = None;
    }

    /// Begins an orderly reboot; returns at once.
    pub(crate) async fn reboot(&mut self) -> Result<()> {
        match self.get().await {
            Some(systemd) => systemd.reboot().await,
            None => Err(Self::silent()),
        }
    }

    /// What there is to say of a systemd that says nothing.
    pub(crate) fn silent() -> Failure {
        Failure::failed("systemd does not answer")
    }
}

/// The one function of a stream library that is needed.
mod futures_lite_next {
    use std::pin::Pin;

    use zbus::export::futures_core::Stream;

    pub(super) async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
        std::future::poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a real systemd: `DBUS_SYSTEM_BUS_ADDRESS` is a bus whose manager has ok.service (a
    /// oneshot that remains after it ended well) and bad.service (one that fails).
    #[tokio::test]
    #[ignore = "needs a running systemd"]
    async fn a_real_systemd_answers() {
        let systemd = Systemd::connect().await.unwrap();
        systemd.reload().await.unwrap();
        systemd.start("ok.service").await.unwrap();
        assert_eq!(systemd.state_of("ok.service").await.unwrap(), "active");
        let e = systemd.start("bad.service").await.unwrap_err();
        assert!(e.to_string().contains("\"failed\""), "{e}");
        assert_eq!(systemd.failed().await.unwrap(), ["bad.service"]);
        assert_eq!(systemd.state_of("none.service").await.unwrap(), "not found");
        assert!(!systemd.stopping().await);
    }
}
