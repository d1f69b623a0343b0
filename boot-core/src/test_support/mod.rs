//! For tests and simulators: partitions in memory that can be made to fail, keys that everybody knows,
//! small signed images, and a machine made of them for the loader's decision to run on.

mod device;
mod image;
mod machine;
mod program;

pub use device::{MemoryDevice, MemoryError};
pub use image::{
    Image, P256_ROOT, P256_SIGNING, ROOT, SIGNING, Signers, TestKey, TestP256Key, keyring_chain,
    keyring_chain_v2, manifest, trust, trust_v2,
};
pub use machine::Machine;
pub use program::program;
