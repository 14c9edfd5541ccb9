//! The `plyfs` program: everything it does is in [`plyfs::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    plyfs::cli::main()
}
