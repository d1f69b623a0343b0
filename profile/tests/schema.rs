//! The published JSON Schema is the one that profiles are checked against.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

#[test]
fn the_published_schema_is_current() {
    let path = PathBuf::from(env!("STERNPOST_SOURCE")).join("docs/schemas/profile.schema.json");
    let wanted = format!("{:#}\n", profile::json_schema());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, &wanted).expect("written");
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "run: UPDATE_GOLDEN=1 cargo test -p profile, and read the diff"
    );
}

/// The check of a profile understands a part of JSON Schema. A type that needs more must fail here,
/// not pass unchecked.
#[test]
fn the_schema_uses_only_what_the_check_understands() {
    const KNOWN: &[&str] = &[
        "$defs",
        "$ref",
        "$schema",
        "additionalProperties",
        "anyOf",
        "const",
        "default",
        "description",
        "examples",
        "format",
        "items",
        "maxItems",
        "maximum",
        "minimum",
        "oneOf",
        "properties",
        "required",
        "title",
        "type",
        "writeOnly",
    ];
    const TYPES: &[&str] = &["array", "boolean", "integer", "null", "object", "string"];
    fn walk(schema: &Value) {
        let Value::Object(schema) = schema else {
            assert_eq!(
                *schema,
                Value::Bool(false),
                "only `false` stands for a schema"
            );
            return;
        };
        for (key, value) in schema {
            assert!(KNOWN.contains(&key.as_str()), "`{key}` is not understood");
            match key.as_str() {
                "$defs" | "properties" => value.as_object().expect("a map").values().for_each(walk),
                "anyOf" | "oneOf" => value.as_array().expect("a list").iter().for_each(walk),
                "items" | "additionalProperties" => walk(value),
                "type" => {
                    let types = value
                        .as_array()
                        .cloned()
                        .unwrap_or_else(|| vec![value.clone()]);
                    assert!(
                        types
                            .iter()
                            .all(|t| TYPES.contains(&t.as_str().unwrap_or_default())),
                        "{value}"
                    );
                }
                _ => {}
            }
        }
    }
    walk(&profile::json_schema());
}

/// A distribution that is in the list and not in the schema could not be named, and the other way round.
#[test]
fn the_schema_names_every_distribution() {
    let schema = profile::json_schema();
    let named: Vec<&str> = schema["$defs"]["Kubernetes"]["oneOf"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|kind| kind["properties"]["distribution"]["const"].as_str())
        .collect();
    let known: Vec<&str> = profile::kubernetes::ALL
        .iter()
        .map(|it| it.name())
        .collect();
    assert_eq!(named, known);
}
