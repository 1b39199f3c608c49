#!/usr/bin/env bash
# The tools that ship: their own tests on this machine, then each built by the `mayfly` of this checkout.
set -euo pipefail
cd "$(dirname "$0")/../.."
for crate in images/*/Cargo.toml; do
  cargo test --quiet --manifest-path "$crate" --target-dir target/tools --locked
done
for test in images/*/test_*.py; do
  (cd "$(dirname "$test")" && python3 -m unittest --quiet "$(basename "$test" .py)")
done
cargo build --locked --workspace --bins
# The tools' packages come from Debian, which the build reaches over the host's network.
target/debug/mayfly tool build --network host images/http_probe images/json_query images/code_executor images/git_log
target/debug/mayfly tool check images
