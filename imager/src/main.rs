//! `imager`: recipe to signed image and bundle.

use std::process::ExitCode;

fn main() -> ExitCode {
    imager::commands::main()
}
