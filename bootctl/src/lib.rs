//! The boot controller of an appliance: command line and service.
//!
//! A library, so that tests and a crash simulator run over disks of their own what runs in the field;
//! the program is `main.rs`.
//!
//! | module | holds |
//! | --- | --- |
//! | [`cli`] | what can be said on the command line |
//! | [`commands`] | one file a command |
//! | [`control`], [`settle`] | changes of the boot state, in their order, over any device |
//! | [`install`] | writing a bundle into a slot, over any device and source |
//! | [`loader`] | updating the loader on both ESPs, over any device |
//! | [`source`] | where bundles come from |
//! | [`serve`] | the service: bring-up, health gate, verdict |
//! | [`watchdog`] | what covers which stretch of a start, and what the loader is told of it |
//! | [`machine`], [`device`], [`lock`], [`clock`] | the edges: facts, partitions, lock, time |

pub mod cli;
pub mod clock;
pub mod commands;
pub mod control;
pub mod device;
pub mod failure;
pub mod fallback;
pub mod install;
pub mod loader;
pub mod lock;
pub mod machine;
pub mod output;
pub mod owner;
pub mod profiles;
pub mod progress;
pub mod root_check;
pub mod serve;
pub mod settle;
pub mod source;
pub mod watchdog;
