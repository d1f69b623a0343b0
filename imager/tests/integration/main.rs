//! Images made of small stand-ins, without packages or a tools tree: what is written is read back,
//! checked, and damaged.

#![allow(clippy::unwrap_used, missing_docs)]

mod cases;
mod command_line;
mod images;
mod reproducible;
mod roots;
mod schema;
mod support;
