# A Docker engine: the one that answers, or one of our own that ends with this script. And the base image of the shipped tools.
docker_announce() {
  skips DOCKER && return
  if docker info >/dev/null 2>&1; then note "Docker Engine: $(docker version -f '{{.Server.Version}}')"
  else note "Docker Engine: none answers; docker.io will be installed and an engine started under target/tests/docker"; fi
  note "Base image debian:bookworm-slim: the one here, or pulled, or made with debootstrap"
}

docker_ready() {
  skips DOCKER >/dev/null && return
  docker info >/dev/null 2>&1 && return
  [ "$(uname -s)" = Linux ] || die "start a Docker engine first: on this system the script cannot"
  command -v dockerd >/dev/null && command -v iptables >/dev/null || apt_install docker.io iptables
  [ "$(id -u)" = 0 ] || die "no Docker engine answers; start one, or run this script as root so that it can"
  local dir="$PWD/target/tests/docker"
  mkdir -p "$dir"
  export DOCKER_HOST="unix://$dir/docker.sock"
  setsid dockerd --host "$DOCKER_HOST" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" \
    >"$dir/log" 2>&1 </dev/null &
  DOCKERD_PID=$!
  at_exit docker_stop
  for _ in $(seq 60); do docker info >/dev/null 2>&1 && { note "started dockerd ($DOCKER_HOST)"; return; }; sleep 0.5; done
  tail -n 20 "$dir/log" >&2
  die "dockerd did not start; its log is above"
}

docker_stop() { [ -z "${DOCKERD_PID:-}" ] || { kill "$DOCKERD_PID" 2>/dev/null; wait "$DOCKERD_PID" 2>/dev/null || true; }; }

base_image_ready() {
  skips DOCKER >/dev/null && return
  docker image inspect "$1" >/dev/null 2>&1 && return
  timeout 60 docker pull --quiet "$1" >/dev/null 2>&1 && return
  note "no registry answers: making $1 with debootstrap (about a minute, once)"
  command -v debootstrap >/dev/null || apt_install debootstrap
  local root; root=$(mktemp -d)
  as_root debootstrap --variant=minbase --include=ca-certificates bookworm "$root" >"$root.log" 2>&1 || { tail "$root.log" >&2; die "debootstrap failed"; }
  as_root tar -C "$root" -c . | docker import - "$1" >/dev/null
  as_root rm -rf "$root" "$root.log"
}
