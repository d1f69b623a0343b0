//! Whose image it is: keys, what signs with them, and the keyring that says which of them count.

pub mod authority;
pub mod signers;
