//! Sources of what is not a Debian package.
pub mod file;
pub mod go;
pub mod image;
pub mod url;
