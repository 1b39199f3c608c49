# The pinned toolchain and the targets that rust-toolchain.toml lists.
rust_targets() { sed -n 's/^targets = \[\(.*\)\]/\1/p' rust-toolchain.toml | tr -d '",'; }
rust_announce() { note "Rust: the toolchain and targets of rust-toolchain.toml, by rustup"; }
rust_ready() {
  command -v rustup >/dev/null || die "install rustup first: https://rustup.rs"
  cargo --version >/dev/null 2>&1 || rustup toolchain install
  # shellcheck disable=SC2046
  rustup target add $(rust_targets) 2>&1 | grep -v 'up to date' || true
  rustup component add rustfmt clippy 2>&1 | grep -v 'up to date' || true
  command -v cc >/dev/null || apt_install gcc libc6-dev
  # The static executor has no C in it; its linking needs no musl-gcc.
}
