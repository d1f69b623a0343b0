//! One API server, reached by `kube`.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::Node;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Error};
use profile::Question;
use profile::schema::{Workload, WorkloadKind};

use super::{Answer, apply, lock, rollout};

/// How long a connection may take to come about, and how long one may then be silent: a machine that went away is
/// noticed by that. The whole of a question, or of a file that is applied, is bounded by what its caller gives, which a
/// profile renders: `QUESTION` and `Work::Apply` there.
const SILENCE: Duration = Duration::from_secs(30);

/// The API server that a kubeconfig names.
pub(crate) struct ApiServer {
    kubeconfig: PathBuf,
    connected: Mutex<Option<Connected>>,
}

struct Connected {
    /// The text of the kubeconfig that it was made from.
    by: String,
    client: Client,
}

impl ApiServer {
    pub(super) fn new(kubeconfig: impl Into<PathBuf>) -> Self {
        Self {
            kubeconfig: kubeconfig.into(),
            connected: Mutex::default(),
        }
    }

    /// `Ok` if what is asked holds, else why it does not; also if that is not known in time.
    pub(crate) async fn answer(&self, question: &Question, within: Duration) -> Answer {
        let asked = async {
            match question {
                Question::ApiReady => self.is_ready().await,
                Question::NodeReady { node, boot_id } => self.node_is_ready(node, boot_id).await,
                Question::RolledOut(workload) => self.has_rolled_out(workload).await,
            }
        };
        in_time(within, asked).await
    }

    /// Applies every object of a file of YAML documents, in their order; ours are the fields that
    /// it names, whoever had them before. Stops at the first that is refused, and when the time is over.
    pub(crate) async fn apply(&self, documents: &str, within: Duration) -> Answer {
        let applied = async { apply::documents(&self.client().await?, documents).await };
        in_time(within, applied).await
    }

    async fn client(&self) -> Answer<Client> {
        let file = self.kubeconfig.display();
        let text =
            small_file::read_to_string(&self.kubeconfig).map_err(|e| format!("{file}: {e}"))?;
        if let Some(connected) = &*lock(&self.connected)
            && connected.by == text
        {
            return Ok(connected.client.clone());
        }
        let kubeconfig = Kubeconfig::from_yaml(&text).map_err(|e| format!("{file}: {e}"))?;
        let options = KubeConfigOptions::default();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|e| format!("{file}: {e}"))?;
        config.connect_timeout = Some(SILENCE);
        config.read_timeout = Some(SILENCE);
        // Else the time in which nothing was asked counts as part of the next answer's.
        config.reset_reader_on_write = true;
        // The one that asks again is whoever wants to know, at its own pace.
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|e| format!("{file}: {}", words(&e)))?;
        *lock(&self.connected) = Some(Connected {
            by: text,
            client: client.clone(),
        });
        Ok(client)
    }

    /// Whether the API server says of itself that it is ready (`/readyz`).
    async fn is_ready(&self) -> Answer {
        let request = http::Request::get("/readyz")
            .body(Vec::new())
            .map_err(|e| e.to_string())?;
        match self.client().await?.request_text(request).await {
            Ok(_) => Ok(()),
            Err(e) => Err(unready(&words(&e))),
        }
    }

    /// Whether `node` is Ready as of the boot `boot_id`: what the kubelet said before the last one
    /// may still be written there.
    async fn node_is_ready(&self, node: &str, boot_id: &str) -> Answer {
        let nodes: Api<Node> = Api::all(self.client().await?);
        let node = nodes.get(node).await.map_err(|e| words(&e))?;
        ready_since(&node, boot_id)
    }

    /// Whether a workload runs as it was last asked for, in all its replicas.
    async fn has_rolled_out(&self, workload: &Workload) -> Answer {
        let (namespace, name) = (workload.namespace.as_str(), workload.name.as_str());
        let client = self.client().await?;
        match workload.kind {
            WorkloadKind::Deployment => {
                let all: Api<Deployment> = Api::namespaced(client, namespace);
                rollout::deployment(&all.get(name).await.map_err(|e| words(&e))?)
            }
            WorkloadKind::DaemonSet => {
                let all: Api<DaemonSet> = Api::namespaced(client, namespace);
                rollout::daemon_set(&all.get(name).await.map_err(|e| words(&e))?)
            }
            WorkloadKind::StatefulSet => {
                let all: Api<StatefulSet> = Api::namespaced(client, namespace);
                rollout::stateful_set(&all.get(name).await.map_err(|e| words(&e))?)
            }
        }
    }
}

async fn in_time(within: Duration, asked: impl Future<Output = Answer>) -> Answer {
    tokio::time::timeout(within, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", within.as_secs())))
}

/// What an error of `kube` comes down to.
pub(super) fn words(error: &Error) -> String {
    if let Error::Api(status) = error {
        return status.message.trim().to_owned();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Of the answer of `/readyz`, what does not hold: it lists each check as `[+]name ok` or
/// `[-]name failed: reason withheld`.
fn unready(answer: &str) -> String {
    let failed: Vec<&str> = answer
        .lines()
        .filter_map(|line| line.strip_prefix("[-]")?.split_whitespace().next())
        .collect();
    if failed.is_empty() {
        answer.lines().next().unwrap_or_default().to_owned()
    } else {
        format!("not ready: {}", failed.join(", "))
    }
}

fn ready_since(node: &Node, boot_id: &str) -> Answer {
    let status = node.status.as_ref();
    let booted = status.and_then(|s| s.node_info.as_ref());
    if booted.is_none_or(|info| info.boot_id != boot_id) {
        return Err("the kubelet has not reported since this boot".into());
    }
    let ready = status
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default()
        .iter()
        .find(|condition| condition.type_ == "Ready");
    match ready {
        Some(condition) if condition.status == "True" => Ok(()),
        Some(condition) => Err(condition
            .message
            .clone()
            .or_else(|| condition.reason.clone())
            .unwrap_or_else(|| condition.status.clone())),
        None => Err("it has no condition Ready yet".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use serde_json::json;

    use super::super::ApiServers;
    use super::*;
    use crate::os::paths::Paths;

    fn node(boot_id: &str, ready: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": "edge-1" },
            "status": {
                "nodeInfo": {
                    "architecture": "amd64", "bootID": boot_id, "containerRuntimeVersion": "",
                    "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "",
                    "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": "",
                },
                "conditions": [
                    { "type": "MemoryPressure", "status": "False" },
                    { "type": "Ready", "status": ready, "message": "container runtime is down" },
                ],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_node_is_ready_only_as_of_this_boot() {
        assert_eq!(ready_since(&node("now", "True"), "now"), Ok(()));
        assert_eq!(
            ready_since(&node("before", "True"), "now"),
            Err("the kubelet has not reported since this boot".into())
        );
        assert_eq!(
            ready_since(&node("now", "False"), "now"),
            Err("container runtime is down".into())
        );
        assert!(ready_since(&Node::default(), "now").is_err());
    }

    #[test]
    fn what_readyz_lists_is_shortened_to_what_failed() {
        let answer = "[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac failed: reason withheld\nreadyz check failed";
        assert_eq!(unready(answer), "not ready: etcd, poststarthook/rbac");
        assert_eq!(unready("Forbidden"), "Forbidden");
    }

    #[tokio::test]
    async fn an_api_server_that_is_not_there_is_said_in_plain_words() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let missing = ApiServer::new("/does/not/exist");
        let said = missing.is_ready().await.unwrap_err();
        assert!(said.starts_with("/does/not/exist: No such file"), "{said}");

        // Nothing listens on port 1.
        std::fs::write(&file, kubeconfig(1)).unwrap();
        let all = ApiServers::new(Paths::new(Path::new("/")));
        let nobody = all.at(file.path().to_str().unwrap());
        let said = nobody.answer(&Question::ApiReady, SILENCE).await;
        let said = said.unwrap_err();
        assert!(said.contains("refused"), "{said}");
        // With its connection it stays the same one, until the kubeconfig says something else.
        assert!(Arc::ptr_eq(&nobody, &all.at(file.path().to_str().unwrap())));
    }

    #[tokio::test]
    async fn an_api_server_that_says_nothing_has_its_time_and_no_more() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, kubeconfig(silent.local_addr().unwrap().port())).unwrap();
        let within = Duration::from_millis(200);
        let server = ApiServer::new(file.path());
        let said = server.answer(&Question::ApiReady, within).await;
        assert_eq!(said, Err("no answer within 0 s".into()));
    }

    fn kubeconfig(port: u16) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{"name": "a", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "users": [{"name": "a", "user": {}}],
        })
        .to_string()
    }
}
