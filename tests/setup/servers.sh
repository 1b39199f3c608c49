# The servers that credentials come from in the tests, a Vault and an OAuth 2.0 server: built from their Go modules.
source tests/setup/go.sh
servers_are_built() {
  local built=target/tools/bin/servers
  [ -x $built ] && [ -z "$(find tests/servers -type f -newer $built)" ]
}
servers_announce() {
  servers_are_built && note "Vault and an OAuth server: built" || note "Vault and an OAuth server: will be built from their Go modules (about 4 minutes, once)"
}
servers_ready() {
  servers_are_built && return
  go_ready 24
  note "building Vault and an OAuth server (about 4 minutes, once)"
  (cd tests/servers && go build -trimpath -ldflags '-s -w' -o ../../target/tools/bin/servers .) || die "they could not be built; the messages are above"
  # Go leaves the file alone when only comments have changed.
  touch target/tools/bin/servers
}
