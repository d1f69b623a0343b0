//! YAML out.

use serde_json::Value;

/// A value as one YAML document. What cannot be written in block style for whatever reason is written
/// as JSON, which is YAML too.
pub(crate) fn to_string(value: &Value) -> String {
    let mut text = serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
