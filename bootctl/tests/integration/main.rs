//! The program itself, over a directory that stands in for a machine.

#![allow(clippy::unwrap_used)]

mod changes;
mod fixture;
mod hostile_state;
mod identity;
mod install;
mod interrupted;
mod loader;
mod memory;
mod profile;
mod recovery;
mod repair;
mod serve;
mod server;
mod sources;
mod state;
mod systemd;
mod time;
mod web;
