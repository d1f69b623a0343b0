//! Server-side apply of a file of YAML documents.

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Api, Client};

use super::Answer;
use super::server::words;

/// Who owns, in the API server's books, the fields that we apply.
const MANAGER: &str = "sternpost";

pub(super) async fn documents(client: &Client, documents: &str) -> Answer {
    let objects: Vec<DynamicObject> =
        serde_saphyr::from_multiple(documents).map_err(|e| e.to_string())?;
    for object in &objects {
        let kind = object.types.as_ref().map_or("", |t| t.kind.as_str());
        let name = object.metadata.name.as_deref().unwrap_or_default();
        apply(client, object)
            .await
            .map_err(|why| format!("{kind} {name}: {why}"))?;
    }
    Ok(())
}

async fn apply(client: &Client, object: &DynamicObject) -> Answer {
    let types = object.types.as_ref().ok_or("it has no kind")?;
    let name = object.metadata.name.as_deref().ok_or("it has no name")?;
    let kind = GroupVersionKind::try_from(types).map_err(|e| e.to_string())?;
    let (resource, capabilities) = pinned_kind(client, &kind).await.map_err(|e| words(&e))?;
    let namespace = object.metadata.namespace.as_deref();
    let all: Api<DynamicObject> = match (capabilities.scope, namespace) {
        (Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
        (Scope::Namespaced, Some(namespace)) => {
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
        (Scope::Namespaced, None) => Api::default_namespaced_with(client.clone(), &resource),
    };
    let parameters = PatchParams::apply(MANAGER).force();
    all.patch(name, &parameters, &Patch::Apply(object))
        .await
        .map_err(|e| words(&e))?;
    Ok(())
}
