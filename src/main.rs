//! Entry point: everything is in the library.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: k3sup_rs_allocator::Allocator = k3sup_rs_allocator::Allocator;

fn main() -> ExitCode {
    ExitCode::from(k3sup_rs::cli::main())
}
