#!/usr/bin/env bash
# The executor that goes into images stays thin: no engine, no server, no policy; static; a few megabytes.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=x86_64-unknown-linux-musl
[ "$(uname -m)" = aarch64 ] && target=aarch64-unknown-linux-musl && rustup target add "$target" 2>/dev/null
tree=$(cargo tree -p mayfly-executor --no-default-features --target "$target" --edges normal --prefix none --locked)
for heavy in axum hyper reqwest wasmtime bollard kube regorus opa-wasm sqlx opentelemetry; do
  if grep -qE "^$heavy v" <<<"$tree"; then echo "the executor depends on $heavy" >&2; exit 1; fi
done
cargo build -p mayfly-executor --no-default-features --target "$target" --profile executor --locked
bin=target/$target/executor/mayfly-executor
size=$(stat -c %s "$bin")
[ "$size" -lt 6000000 ] || { echo "the executor has grown to $size bytes" >&2; exit 1; }
if ldd "$bin" 2>/dev/null | grep -q '=>'; then echo "the executor is not static" >&2; exit 1; fi
echo "   $bin: $size bytes, static, $(wc -l <<<"$tree") crates"
