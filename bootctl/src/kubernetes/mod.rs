//! The Kubernetes API of this machine's cluster. Nothing else in `bootctl` reaches it.
//!
//! ```text
//! ApiServers ─ kubeconfig ─ ApiServer ─┬─ answer   a question of the health plan or of the bring-up
//!                                      └─ apply    objects, server-side, as "sternpost"
//! ```
//!
//! A client is kept, with its connection, for as long as the kubeconfig says the same: renewed
//! certificates and another address are taken up by the next request. Whatever goes wrong is a
//! sentence for people; the API server's own words where it has any, else the innermost cause
//! ("connection refused").
//!
//! Nothing here waits or tries again: whoever wants to know says how long all of it may take
//! (of a rendered question `QUESTION`, in the crate profile's `contribution`), and asks again.

#[cfg(feature = "kubernetes-api")]
mod apply;
#[cfg(feature = "kubernetes-api")]
mod rollout;
#[cfg_attr(not(feature = "kubernetes-api"), path = "absent.rs")]
mod server;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::os::paths::Paths;

pub(crate) use server::ApiServer;

/// Why something does not hold, or could not be asked.
pub(crate) type Answer<T = ()> = std::result::Result<T, String>;

/// The API servers of a machine, each with its connection: the bring-up and the health checks share them.
#[derive(Clone)]
pub(crate) struct ApiServers {
    paths: Paths,
    known: Arc<Mutex<BTreeMap<String, Arc<ApiServer>>>>,
}

impl ApiServers {
    pub(crate) fn new(paths: Paths) -> Self {
        Self {
            paths,
            known: Arc::default(),
        }
    }

    /// The one that `kubeconfig` names, a path on the machine.
    pub(crate) fn at(&self, kubeconfig: &str) -> Arc<ApiServer> {
        let mut known = lock(&self.known);
        let new = || Arc::new(ApiServer::new(self.paths.at(kubeconfig)));
        known
            .entry(kubeconfig.to_owned())
            .or_insert_with(new)
            .clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
