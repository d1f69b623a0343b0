//! Whether a workload runs as it was last asked for.
//!
//! The rules are those of `kubectl rollout status` (k8s.io/kubectl pkg/polymorphichelpers
//! rollout_status.go), but for sets whose strategy is OnDelete: there nothing is rolled out, and
//! what runs is what counts.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};

use super::Answer;

/// A controller has seen what is asked for now; before that its counts are about something else.
fn is_observed(generation: Option<i64>, observed: Option<i64>) -> Answer {
    if observed.unwrap_or(0) < generation.unwrap_or(0) {
        return Err("its controller has not looked at it yet".into());
    }
    Ok(())
}

fn at_least(have: Option<i32>, want: i32, what: &str) -> Answer {
    let have = have.unwrap_or(0);
    if have < want {
        return Err(format!("{have} of {want} {what}"));
    }
    Ok(())
}

pub(super) fn deployment(it: &Deployment) -> Answer {
    let (spec, status) = (it.spec.as_ref(), it.status.clone().unwrap_or_default());
    is_observed(it.metadata.generation, status.observed_generation)?;
    let given_up = status.conditions.iter().flatten().find(|c| {
        c.type_ == "Progressing" && c.reason.as_deref() == Some("ProgressDeadlineExceeded")
    });
    if let Some(condition) = given_up {
        return Err(condition
            .message
            .clone()
            .unwrap_or_else(|| "its progress deadline has passed".into()));
    }
    let wanted = spec.and_then(|s| s.replicas).unwrap_or(1);
    at_least(status.updated_replicas, wanted, "updated")?;
    let updated = status.updated_replicas.unwrap_or(0);
    let old = status.replicas.unwrap_or(0).saturating_sub(updated);
    if old > 0 {
        return Err(format!("{old} of an older kind still there"));
    }
    at_least(status.available_replicas, updated, "available")
}

pub(super) fn daemon_set(it: &DaemonSet) -> Answer {
    let status = it.status.clone().unwrap_or_default();
    is_observed(it.metadata.generation, status.observed_generation)?;
    let strategy = it.spec.as_ref().and_then(|s| s.update_strategy.as_ref());
    let wanted = status.desired_number_scheduled;
    if strategy.and_then(|s| s.type_.as_deref()) != Some("OnDelete") {
        at_least(status.updated_number_scheduled, wanted, "updated")?;
    }
    at_least(status.number_available, wanted, "available")
}

pub(super) fn stateful_set(it: &StatefulSet) -> Answer {
    let status = it.status.clone().unwrap_or_default();
    is_observed(it.metadata.generation, status.observed_generation)?;
    let spec = it.spec.as_ref();
    let wanted = spec.and_then(|s| s.replicas).unwrap_or(1);
    at_least(status.ready_replicas, wanted, "ready")?;
    let strategy = spec.and_then(|s| s.update_strategy.as_ref());
    if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
        return Ok(());
    }
    let kept_old = strategy
        .and_then(|s| s.rolling_update.as_ref())
        .and_then(|r| r.partition)
        .unwrap_or(0);
    if kept_old > 0 {
        return at_least(
            status.updated_replicas,
            wanted.saturating_sub(kept_old),
            "updated",
        );
    }
    if status.update_revision != status.current_revision {
        return at_least(status.updated_replicas, wanted, "updated");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn says(answer: Answer) -> String {
        answer.unwrap_err()
    }

    fn a_deployment(status: Value) -> Answer {
        deployment(
            &serde_json::from_value(json!({
                "metadata": { "generation": 3 },
                "spec": { "replicas": 2, "selector": {}, "template": {} },
                "status": status,
            }))
            .unwrap(),
        )
    }

    fn counts(observed: i64, replicas: i32, updated: i32, available: i32) -> Value {
        json!({
            "observedGeneration": observed, "replicas": replicas,
            "updatedReplicas": updated, "availableReplicas": available,
        })
    }

    #[test]
    fn a_deployment_is_up_when_all_of_its_last_generation_are_available() {
        assert_eq!(a_deployment(counts(3, 2, 2, 2)), Ok(()));
        // Counts that were true before the change, or before the reboot.
        assert_eq!(
            says(a_deployment(counts(2, 2, 2, 2))),
            "its controller has not looked at it yet"
        );
        assert_eq!(says(a_deployment(counts(3, 2, 1, 2))), "1 of 2 updated");
        assert_eq!(
            says(a_deployment(counts(3, 3, 2, 2))),
            "1 of an older kind still there"
        );
        assert_eq!(says(a_deployment(counts(3, 2, 2, 1))), "1 of 2 available");
        assert_eq!(
            says(a_deployment(json!({ "observedGeneration": 3 }))),
            "0 of 2 updated"
        );
        let given_up = json!({
            "observedGeneration": 3,
            "conditions": [{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
                             "message": "ReplicaSet \"a\" has timed out progressing." }],
        });
        assert!(says(a_deployment(given_up)).contains("timed out"));
    }

    fn a_daemon_set(strategy: &str, updated: i32, available: i32) -> Answer {
        daemon_set(
            &serde_json::from_value(json!({
                "metadata": { "generation": 1 },
                "spec": { "selector": {}, "template": {}, "updateStrategy": { "type": strategy } },
                "status": {
                    "observedGeneration": 1, "currentNumberScheduled": 1, "numberMisscheduled": 0, "numberReady": 1,
                    "desiredNumberScheduled": 1, "updatedNumberScheduled": updated, "numberAvailable": available,
                },
            }))
            .unwrap(),
        )
    }

    #[test]
    fn a_daemon_set_that_is_updated_by_deletion_need_not_be_updated() {
        assert_eq!(a_daemon_set("RollingUpdate", 1, 1), Ok(()));
        assert_eq!(says(a_daemon_set("RollingUpdate", 0, 1)), "0 of 1 updated");
        assert_eq!(a_daemon_set("OnDelete", 0, 1), Ok(()));
        assert_eq!(says(a_daemon_set("OnDelete", 0, 0)), "0 of 1 available");
    }

    fn a_stateful_set(strategy: Value, ready: i32, updated: i32, revisions: [&str; 2]) -> Answer {
        stateful_set(
            &serde_json::from_value(json!({
                "metadata": { "generation": 1 },
                "spec": { "replicas": 3, "serviceName": "a", "selector": {}, "template": {}, "updateStrategy": strategy },
                "status": {
                    "observedGeneration": 1, "replicas": 3, "readyReplicas": ready, "updatedReplicas": updated,
                    "currentRevision": revisions[0], "updateRevision": revisions[1],
                },
            }))
            .unwrap(),
        )
    }

    #[test]
    fn a_stateful_set_is_up_by_what_its_strategy_means() {
        let rolling = json!({ "type": "RollingUpdate" });
        assert_eq!(a_stateful_set(rolling.clone(), 3, 3, ["a", "a"]), Ok(()));
        assert_eq!(
            says(a_stateful_set(rolling.clone(), 2, 3, ["a", "a"])),
            "2 of 3 ready"
        );
        assert_eq!(
            says(a_stateful_set(rolling, 3, 1, ["a", "b"])),
            "1 of 3 updated"
        );
        let partition = json!({ "type": "RollingUpdate", "rollingUpdate": { "partition": 2 } });
        assert_eq!(a_stateful_set(partition.clone(), 3, 1, ["a", "b"]), Ok(()));
        assert_eq!(
            says(a_stateful_set(partition, 3, 0, ["a", "b"])),
            "0 of 1 updated"
        );
        assert_eq!(
            a_stateful_set(json!({ "type": "OnDelete" }), 3, 0, ["a", "b"]),
            Ok(())
        );
    }
}
