//! What a document in JSON says of itself before anything else of it can be known: the number of its format.

use serde::Deserialize;

/// The number in the field `format` of a JSON object, of whose other fields nothing is known before.
///
/// # Errors
/// There is none.
pub(crate) fn format_number(json: &[u8]) -> serde_json::Result<u32> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    serde_json::from_slice(json).map(|Format { format }| format)
}
