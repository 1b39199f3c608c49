# PostgreSQL's programs. Each test that needs a server starts one of its own; the package's own server is neither made nor started.
postgres_found() { ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null; }
postgres_announce() {
  if postgres_found; then note "PostgreSQL: here"; else note "PostgreSQL: none; Debian's package will be installed, and no server of it started"; fi
}
postgres_ready() {
  postgres_found && return
  local settings=/etc/postgresql-common/createcluster.conf
  if [ ! -e "$settings" ]; then
    as_root mkdir -p "$(dirname "$settings")"
    echo 'create_main_cluster = false' | as_root tee "$settings" >/dev/null
  fi
  # Ours stays: asked which of two to keep, nobody would answer.
  apt_install -o Dpkg::Options::=--force-confold postgresql
}
