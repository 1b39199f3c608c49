#!/usr/bin/env bash
# The tools that ship: the tests of their crates on the host, all of them built by mayfly, the tests of the images' programs
# inside those images.
set -euo pipefail
cd "$(dirname "$0")/../.."
for crate in json_query:wasm32-wasip1 http_probe:wasm32-wasip2; do
  # The lock file is the crate's own; the folder is the one that `mayfly tool build` uses.
  of=(--quiet --locked --manifest-path "images/${crate%:*}/Cargo.toml" --target-dir target/tools)
  cargo fmt --check --manifest-path "images/${crate%:*}/Cargo.toml"
  cargo clippy "${of[@]}" --target "${crate#*:}" -- -D warnings
  cargo clippy "${of[@]}" --tests -- -D warnings
  cargo test "${of[@]}"
done
tools=(images/json_query images/http_probe)
[ "${MAYFLY_TEST_SKIP_DOCKER:-}" = 1 ] || tools+=(images/code_executor images/git_log images/k8s_get_deployment images/k8s_pod_logs images/k8s_scale_deployment images/postgres_query)
cargo run --quiet --locked --bin mayfly -- tool build --network host ${MAYFLY_TEST_REGISTRY:+--push "$MAYFLY_TEST_REGISTRY"} "${tools[@]}" 2>target/tools/build.log || { tail -n 40 target/tools/build.log >&2; exit 1; }
[ "${MAYFLY_TEST_SKIP_DOCKER:-}" = 1 ] && { echo "SKIPPED: the images, by MAYFLY_TEST_SKIP_DOCKER=1" >&2; exit 0; }
for tool in code_executor git_log k8s_get_deployment k8s_pod_logs k8s_scale_deployment postgres_query; do
  image=$(sed -n 's/.*"image": "\(sha256:[0-9a-f]*\)".*/\1/p' "images/$tool/tool.lock")
  echo "   $tool, in its image"
  # The siblings too: what is copied between them is compared.
  docker run --rm --network none --read-only --tmpfs /tmp:mode=1777 --volume "$PWD/images:/test:ro" --workdir "/test/$tool" \
    --entrypoint /usr/bin/python3 "$image" -B -m unittest
done
