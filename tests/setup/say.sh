# Output and privileges, shared by the set-up scripts.
say() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
die() { printf '\ntests/run: %s\n' "$*" >&2; exit 1; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else die "needs root for: $*"; fi; }
apt_install() {
  command -v apt-get >/dev/null || die "please install: $* (this script knows apt-get only)"
  note "apt-get install $*"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# skips DOCKER|KUBERNETES: whether the environment says to leave it out. Said aloud, here and by each test that is not run.
skips() {
  local variable=MAYFLY_TEST_SKIP_$1
  [ "${!variable:-}" = 1 ] && note "SKIPPED, as $variable=1 says: nothing of it is installed, started or tested"
}

# at_exit FUNCTION: calls it when the script ends, the last one first. A trap of its own would replace the one before.
AT_EXIT=()
at_exit() { AT_EXIT=("$1" "${AT_EXIT[@]}"); trap run_at_exit EXIT; }
run_at_exit() {
  local status=$? f
  set +e
  trap '' INT TERM
  for f in "${AT_EXIT[@]}"; do "$f"; done
  exit "$status"
}
