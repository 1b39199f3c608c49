# `opa`, for `opa test` and `opa build -t wasm`: from PATH, or built from its Go module into target/tools/bin.
source tests/setup/go.sh
OPA_VERSION=v1.22.0
opa_announce() { command -v opa >/dev/null && note "opa: $(command -v opa)" || note "opa: will be built from its Go module ($OPA_VERSION)"; }
opa_ready() {
  command -v opa >/dev/null && return
  go_ready 21
  note "building opa (about a minute, once)"
  GOBIN="$PWD/target/tools/bin" GOFLAGS=-mod=mod go install "github.com/open-policy-agent/opa@$OPA_VERSION"
}
