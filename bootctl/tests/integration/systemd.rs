//! A service manager that says what it is told to say, on a socket like systemd's own.

use std::collections::HashMap;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Mutex};

use zbus::object_server::SignalEmitter;
use zbus::{OwnedObjectPath, interface};

const GUID: &str = "0123456789abcdef0123456789abcdef";

/// What the manager knows and was asked for.
#[derive(Default)]
pub(crate) struct State {
    /// Active state of each unit that there is.
    pub(crate) units: HashMap<String, String>,
    /// What was started.
    pub(crate) started: Vec<String>,
    /// Units whose job fails.
    pub(crate) failing: Vec<String>,
    /// `running` or `stopping`.
    pub(crate) system: String,
}

/// A manager that answers until the test ends.
#[derive(Clone, Default)]
pub(crate) struct Systemd {
    pub(crate) state: Arc<Mutex<State>>,
}

impl Systemd {
    /// Listens on `socket`.
    pub(crate) fn listen(socket: &Path) -> Self {
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let systemd = Self::default();
        systemd.state.lock().unwrap().system = "running".into();
        let state = systemd.state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = state.clone();
                std::thread::spawn(move || serve(stream, state));
            }
        });
        systemd
    }

    pub(crate) fn started(&self) -> Vec<String> {
        self.state.lock().unwrap().started.clone()
    }
}

fn serve(stream: std::os::unix::net::UnixStream, state: Arc<Mutex<State>>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let manager = Manager { state, jobs: 0 };
        let connection = zbus::connection::Builder::unix_stream(stream)
            .server(GUID)
            .p2p()
            .serve_at("/org/freedesktop/systemd1", manager)
            .build()
            .await;
        let Ok(connection) = connection else { return };
        connection.closed().await;
    });
}

struct Manager {
    state: Arc<Mutex<State>>,
    jobs: u32,
}

struct Unit {
    state: Arc<Mutex<State>>,
    name: String,
}

fn path_of(unit: &str) -> OwnedObjectPath {
    let escaped: String = unit
        .bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() {
                char::from(b).to_string()
            } else {
                format!("_{b:02x}")
            }
        })
        .collect();
    format!("/org/freedesktop/systemd1/unit/{escaped}")
        .try_into()
        .unwrap()
}

type Listed = (
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

#[interface(name = "org.freedesktop.systemd1.Manager")]
impl Manager {
    fn subscribe(&self) {}

    fn reload(&self) {}

    async fn start_unit(
        &mut self,
        name: String,
        _mode: String,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> OwnedObjectPath {
        self.jobs += 1;
        let job: OwnedObjectPath = format!("/org/freedesktop/systemd1/job/{}", self.jobs)
            .try_into()
            .unwrap();
        let result = {
            let mut state = self.state.lock().unwrap();
            state.started.push(name.clone());
            let fails = state.failing.contains(&name);
            state
                .units
                .insert(name.clone(), if fails { "failed" } else { "active" }.into());
            if fails { "failed" } else { "done" }
        };
        let (id, emitter, removed) = (self.jobs, emitter.to_owned(), job.clone());
        tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            let _ = Self::job_removed(&emitter, id, removed, name, result.to_owned()).await;
        });
        job
    }

    async fn load_unit(
        &self,
        name: String,
        #[zbus(object_server)] server: &zbus::ObjectServer,
    ) -> OwnedObjectPath {
        let path = path_of(&name);
        let unit = Unit {
            state: self.state.clone(),
            name,
        };
        let _ = server.at(&path, unit).await;
        path
    }

    fn list_units_filtered(&self, states: Vec<String>) -> Vec<Listed> {
        let state = self.state.lock().unwrap();
        let listed = state.units.iter().filter(|(_, s)| states.contains(s));
        listed
            .map(|(name, s)| {
                let none: OwnedObjectPath = "/".try_into().unwrap();
                let text = String::new;
                (
                    name.clone(),
                    text(),
                    "loaded".into(),
                    s.clone(),
                    s.clone(),
                    text(),
                    path_of(name),
                    0,
                    text(),
                    none,
                )
            })
            .collect()
    }

    #[zbus(property)]
    fn system_state(&self) -> String {
        self.state.lock().unwrap().system.clone()
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl Unit {
    #[zbus(property)]
    fn active_state(&self) -> String {
        let state = self.state.lock().unwrap();
        state
            .units
            .get(&self.name)
            .cloned()
            .unwrap_or_else(|| "inactive".into())
    }

    #[zbus(property)]
    fn sub_state(&self) -> String {
        "dead".into()
    }

    #[zbus(property)]
    fn load_state(&self) -> String {
        if self.state.lock().unwrap().units.contains_key(&self.name) {
            "loaded"
        } else {
            "not-found"
        }
        .into()
    }

    #[zbus(property)]
    fn job(&self) -> (u32, OwnedObjectPath) {
        (0, "/".try_into().unwrap())
    }
}
