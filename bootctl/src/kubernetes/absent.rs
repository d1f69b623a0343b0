//! What stands in for an API server where the feature `kubernetes-api` is off: simulators and fuzzers are made of
//! `bootctl`'s code and never ask one, and would take minutes longer to build with it.

use std::path::PathBuf;
use std::time::Duration;

use profile::Question;

use super::Answer;

/// The API server that a kubeconfig names.
pub(crate) struct ApiServer(PathBuf);

impl ApiServer {
    pub(super) fn new(kubeconfig: impl Into<PathBuf>) -> Self {
        Self(kubeconfig.into())
    }

    pub(crate) async fn answer(&self, _: &Question, _: Duration) -> Answer {
        self.refuse()
    }

    pub(crate) async fn apply(&self, _: &str, _: Duration) -> Answer {
        self.refuse()
    }

    fn refuse(&self) -> Answer {
        let file = self.0.display();
        Err(format!(
            "{file}: this program is built without the Kubernetes API"
        ))
    }
}
