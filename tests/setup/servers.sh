# The servers that credentials come from in the tests, a Vault and an OAuth 2.0 server: built from their Go modules. Tools in containers
# use them, so that they go without Docker too.
source tests/setup/go.sh
servers_announce() {
  skips DOCKER >/dev/null && return
  go_is_built servers tests/servers && note "Vault and an OAuth server: built" || note "Vault and an OAuth server: will be built from their Go modules (about 4 minutes, once)"
}
servers_ready() {
  skips DOCKER >/dev/null && return
  command -v openssl >/dev/null || apt_install openssl
  go_is_built servers tests/servers && return
  go_ready 24
  note "building Vault and an OAuth server (about 4 minutes, once)"
  (cd tests/servers && go build -trimpath -ldflags '-s -w' -o ../../target/tools/bin/servers .) || die "they could not be built; the messages are above"
  # Go leaves the file alone when only comments have changed.
  touch target/tools/bin/servers
}
