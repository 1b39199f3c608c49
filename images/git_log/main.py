"""git_log: the history of the repository that is mounted at /repo.

The tool contract: the arguments come as JSON on standard input, the result leaves as JSON on standard output, exit code 0 is
success. Two hostile parties are assumed: the caller, whose ref must not become an option, and the repository, whose
configuration must not make git run anything.
"""

import json
import re
import subprocess
import sys

REPO = "/repo"
GIT = "/usr/bin/git"
# One commit, by name or id, with `~2` or `^` behind it. No range, no `@{...}`, no `:path`, no leading `-`.
REF = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}([~^][0-9]{0,4}){0,8}")
PATH = re.compile(r"[^\0-\x1f\x7f]{1,1024}")
SINCE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?")
MAX_LIMIT = 200
# Longest author and subject.
MAX_TEXT = 1024

# Nothing of the machine's or a user's configuration, no prompt, no path magic, no transport: a partial clone would otherwise
# fetch what it lacks, through a command that its own configuration names.
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/nonexistent",
    "LANG": "C.UTF-8",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_CEILING_DIRECTORIES": "/",
}
# What the repository's own configuration could name as a program to run.
OVERRIDES = ("core.fsmonitor=false", "core.hooksPath=/dev/null", "core.sshCommand=false", "gpg.program=false", "log.showSignature=false")


class BadInput(Exception):
    """The arguments do not fit, or the repository is not there; the text goes to the caller."""


def parse(raw):
    """ref, path, since and limit, checked; raises BadInput."""
    try:
        arguments = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadInput("the arguments are no JSON") from error
    if not isinstance(arguments, dict):
        raise BadInput("the arguments must be an object")
    ref = arguments.pop("ref", "HEAD")
    path = arguments.pop("path", None)
    since = arguments.pop("since", None)
    limit = arguments.pop("limit", 20)
    if arguments:
        raise BadInput(f"unknown argument `{sorted(arguments)[0]}`")
    if not matches(REF, ref):
        raise BadInput("`ref` must name one commit: a branch, a tag or an id, perhaps with `~N` behind it")
    if path is not None and (not matches(PATH, path) or path.startswith("/") or ".." in path.split("/")):
        raise BadInput("`path` must be relative to the repository, without `..`")
    if since is not None and not matches(SINCE, since):
        raise BadInput("`since` must be a date such as 2026-01-31 or 2026-01-31T12:00:00Z")
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= MAX_LIMIT:
        raise BadInput(f"`limit` must be a whole number from 1 to {MAX_LIMIT}")
    return ref, path, since, limit


def matches(pattern, value):
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def git(*arguments):
    """What git prints, or None when it fails; its own words go to the log."""
    command = [GIT, "--no-pager", "-C", REPO, "-c", f"safe.directory={REPO}"]
    for override in OVERRIDES:
        command += ["-c", override]
    done = subprocess.run([*command, *arguments], env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    sys.stderr.write(done.stderr.decode("utf-8", "replace"))
    return done.stdout if done.returncode == 0 else None


def log_command(commit, path, since, limit):
    """The arguments of `git log`. `commit` is a full id by now; paths are behind `--`, and taken literally."""
    # Of a bare date, git would take this hour of that day.
    dated = [f"--since={since if 'T' in since else since + 'T00:00:00Z'}"] if since else []
    # Fields end with NUL, and so do commits (-z): neither names nor subjects can hold one.
    options = ["--no-decorate", "--no-ext-diff", "--no-show-signature", "--encoding=UTF-8", "--no-follow", "-z", "--format=%H%x00%an%x00%aI%x00%s"]
    return ["log", *options, f"--max-count={limit}", *dated, "--end-of-options", commit, "--", *([path] if path else [])]


def commits(printed):
    """What `git log` printed, as objects."""
    fields = printed.decode("utf-8", "replace").split("\0")
    rows = zip(*[iter(fields)] * 4)
    return [{"sha": sha, "author": author[:MAX_TEXT], "date": date, "subject": subject[:MAX_TEXT]} for sha, author, date, subject in rows]


def answer(raw):
    ref, path, since, limit = parse(raw)
    if git("rev-parse", "--git-dir") is None:
        raise BadInput("there is no readable git repository: the operator mounts one at /repo, readable for everyone")
    commit = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if commit is None:
        raise BadInput(f"`ref`: the repository has no commit `{ref}`")
    # One more than asked for, to know whether there are more.
    printed = git(*log_command(commit.decode().strip(), path, since, limit + 1))
    if printed is None:
        raise BadInput("git could not read the history; is the repository complete?")
    found = commits(printed)
    return {"commits": found[:limit], "count": min(len(found), limit), "truncated": len(found) > limit}


def main():
    try:
        result, status = answer(sys.stdin.buffer.read()), 0
    except BadInput as error:
        result, status = {"error": str(error)}, 1
    sys.stdout.write(json.dumps(result))
    return status


if __name__ == "__main__":
    sys.exit(main())
