//! The boot controller of an appliance: command line and service.
//!
//! A library, so that tests and a crash simulator run over disks of their own what runs in the field;
//! the program is `main.rs`.
//!
//! | module | holds |
//! | --- | --- |
//! | [`os`] | what is asked of the operating system: files, devices, locks, time, systemd |
//! | [`machine`] | what is known of this machine and this start |
//! | [`boot`] | changes of the boot state, in their order, over any device |
//! | [`state`] | whose the `state` filesystem is, and how the last run ended |
//! | [`source`], [`install`] | where bundles come from, and writing one into a slot, over any device |
//! | [`loader`] | updating the loader on both ESPs, over any device |
//! | [`watchdog`] | what covers which stretch of a start, and what the loader is told of it |
//! | [`profile`] | which profile is in force, and its early part |
//! | [`bring_up`], [`health`] | bringing up what the profile asks for, and whether the machine is well |
//! | [`service`] | `bootctl serve`: from userland to a verdict, and after it |
//! | [`cli`], [`commands`] | what can be said on the command line; one file a command |

pub mod boot;
pub(crate) mod bring_up;
pub mod cli;
pub mod commands;
pub mod failure;
pub mod health;
pub mod install;
pub mod loader;
pub mod machine;
pub mod os;
pub mod output;
pub mod profile;
pub mod progress;
pub mod service;
pub mod source;
pub mod state;
pub mod watchdog;
