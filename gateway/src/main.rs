//! `mayfly`: see [`mayfly_gateway::cli`].

use std::process::ExitCode;

use clap::Parser;
use mayfly_gateway::cli::Cli;

/// A call allocates some hundred small pieces, on one thread, and frees many of them on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One provider of cryptography for everything that speaks TLS. It can be installed once, and nobody was here before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(cli.run()),
        Err(error) => {
            eprintln!("error: no threads to work with: {error}");
            ExitCode::FAILURE
        }
    }
}
