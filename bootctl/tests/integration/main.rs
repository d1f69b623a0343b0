//! The program itself, over a directory that stands in for a machine.

mod changes;
mod fixture;
mod install;
mod server;
mod sources;
