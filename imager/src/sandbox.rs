//! Runs a program inside the tools tree.
