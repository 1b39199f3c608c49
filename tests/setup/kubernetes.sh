# A Kubernetes cluster: the one that KUBECONFIG names, or one of our own (tests/setup/cluster) that ends with this script.
# The tests make and delete namespaces in it. A given cluster is used only together with MAYFLY_TEST_REGISTRY, a registry that
# its nodes and the Docker engine both reach: so nobody's everyday KUBECONFIG is taken by accident.
source tests/setup/go.sh
kubernetes_version() { sed -n 's#^\tk8s.io/kubernetes ##p' tests/cluster/go.mod; }

kubernetes_announce() {
  skips KUBERNETES && return
  if [ -n "${KUBECONFIG:-}" ]; then
    note "Kubernetes: the cluster of KUBECONFIG=$KUBECONFIG, with the registry ${MAYFLY_TEST_REGISTRY:-(MAYFLY_TEST_REGISTRY is missing)}"
  elif kubenode_is_built; then note "Kubernetes: a node of our own ($(kubernetes_version)) under target/tests/cluster"
  else note "Kubernetes: a node of our own ($(kubernetes_version)), built from its Go modules (about 5 minutes, once), under target/tests/cluster"; fi
}

kubernetes_ready() {
  skips KUBERNETES >/dev/null && return
  skips DOCKER >/dev/null && die "MAYFLY_TEST_SKIP_DOCKER=1 needs MAYFLY_TEST_SKIP_KUBERNETES=1 beside it: images are built with Docker"
  if [ -n "${KUBECONFIG:-}" ]; then
    [ -n "${MAYFLY_TEST_REGISTRY:-}" ] || die "KUBECONFIG names a cluster, but MAYFLY_TEST_REGISTRY does not name a registry (HOST:PORT) \
that both its nodes and the Docker engine reach, for the images of the tests. Set it, or unset KUBECONFIG and a cluster of our own is started"
    command -v kubectl >/dev/null || die "the tests look into the cluster of KUBECONFIG with kubectl; put one on the PATH"
    return
  fi
  [ "$(uname -s)" = Linux ] && [ "$(id -u)" = 0 ] || die "no cluster can be started here, that needs Linux and root: \
run this script there, or set KUBECONFIG and MAYFLY_TEST_REGISTRY to a cluster for tests and its registry"
  kubernetes_packages
  kubenode_build
  export MAYFLY_TEST_CLUSTER="$PWD/target/tests/cluster"
  # What an interrupted run left.
  tests/setup/cluster down "$MAYFLY_TEST_CLUSTER"
  at_exit kubernetes_stop
  KUBECONFIG=$(tests/setup/cluster up "$MAYFLY_TEST_CLUSTER") || die "the cluster did not start; its messages are above"
  MAYFLY_TEST_REGISTRY=$(cat "$MAYFLY_TEST_CLUSTER/registry-address")
  export KUBECONFIG MAYFLY_TEST_REGISTRY
  command -v kubectl >/dev/null || { printf '#!/bin/sh\nexec "%s" kubectl "$@"\n' "$PWD/target/tools/bin/kubenode" >target/tools/bin/kubectl; chmod +x target/tools/bin/kubectl; }
  note "KUBECONFIG=$KUBECONFIG MAYFLY_TEST_REGISTRY=$MAYFLY_TEST_REGISTRY"
}

kubernetes_stop() { [ -z "${MAYFLY_TEST_CLUSTER:-}" ] || tests/setup/cluster down "$MAYFLY_TEST_CLUSTER"; }

# By their programs: some machines have containerd and runc from Docker's own packages, which Debian's would replace.
kubernetes_packages() {
  local missing=()
  command -v containerd >/dev/null || missing+=(containerd)
  command -v runc >/dev/null || missing+=(runc)
  [ -x /usr/lib/cni/bridge ] || missing+=(containernetworking-plugins)
  command -v docker-registry >/dev/null || missing+=(docker-registry)
  command -v ip >/dev/null || missing+=(iproute2)
  command -v openssl >/dev/null || missing+=(openssl)
  [ ${#missing[@]} = 0 ] || apt_install "${missing[@]}"
}

kubenode_is_built() {
  [ -x target/tools/bin/kubenode-pause ] && go_is_built kubenode tests/cluster
}

kubenode_build() {
  kubenode_is_built && return
  go_ready 24
  note "building Kubernetes (about 5 minutes, once)"
  local bin="$PWD/target/tools/bin" version minor; version=$(kubernetes_version); minor=${version#v1.}
  # Clients read the server's version, and a build outside of Kubernetes' own tree has none.
  local is="-X k8s.io/component-base/version"
  local flags="-s -w $is.gitVersion=$version $is.gitMajor=1 $is.gitMinor=${minor%%.*}"
  (
    cd tests/cluster &&
      CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$bin/kubenode-pause" ./pause &&
      go build -trimpath -ldflags "$flags" -o "$bin/kubenode" .
  ) || die "Kubernetes could not be built; the messages are above"
  # Go leaves the file alone when only comments have changed.
  touch "$bin/kubenode"
}
