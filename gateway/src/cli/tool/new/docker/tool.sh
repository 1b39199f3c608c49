#!/bin/sh
# The result leaves on standard output (JSON, or text), log lines on standard error, and exit code 0 is success.
set -eu
greeting=$1
# The name becomes part of a JSON text: escape what JSON would read.
name=$(printf '%s' "$2" | tr -d '\000-\037' | sed 's/[\\"]/\\&/g')
printf '{"text": "%s, %s"}\n' "$greeting" "$name"
