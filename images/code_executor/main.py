"""code_executor: runs a Python snippet, with files in and out.

The tool contract: the arguments come as JSON on standard input, the result leaves as JSON on standard output, exit code 0 is
success. A snippet that fails is a result; exit code 1 is for arguments that do not fit.

Nothing here looks at what the code says. What holds it is the sandbox: no network, a read-only root, a small /tmp, ceilings on
memory, processes and time, and an end that takes everything with it. This program only keeps the answer within its bounds.
"""

import base64
import json
import os
import re
import stat
import subprocess
import sys
import threading

WORK = "/tmp/work"
SNIPPET = "main.py"
# Relative, below the working folder, and no component starts with a dot.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,63}){0,3}")
MAX_CODE = 65536
MAX_FILES = 32
MAX_FILE = 262144
MAX_STDIN = 262144
# Of each stream, and of all files together. With JSON's escapes the answer stays within the tool's output limit.
MAX_STREAM = 65536
MAX_OUTPUTS = 524288
# How long a stream may stay open after the snippet has ended: something it started still holds it.
PATIENCE_SECONDS = 0.5


class BadInput(Exception):
    """The arguments do not fit; the text goes to the caller."""


def check_text(value, key, limit):
    if not isinstance(value, str) or len(value.encode("utf-8", "surrogatepass")) > limit:
        raise BadInput(f"`{key}` must be a text of at most {limit} bytes")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise BadInput(f"`{key}` holds half a surrogate pair, which is no text")
    return value


def check_name(name, key):
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadInput(
            f"`{key}`: a name is relative, has at most four parts of at most 64 letters, digits, `.`, `_` and `-`, and no part starts with `.` or `-`"
        )


def parse(raw):
    """The four arguments, checked; raises BadInput."""
    try:
        arguments = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise BadInput("the arguments are no JSON") from error
    if not isinstance(arguments, dict):
        raise BadInput("the arguments must be an object")
    code = check_text(arguments.pop("code", None), "code", MAX_CODE)
    stdin = check_text(arguments.pop("stdin", ""), "stdin", MAX_STDIN)
    files = arguments.pop("files", {})
    outputs = arguments.pop("outputs", [])
    if arguments:
        raise BadInput(f"unknown argument `{sorted(arguments)[0]}`")
    if not isinstance(files, dict) or len(files) > MAX_FILES:
        raise BadInput(f"`files` must be an object of at most {MAX_FILES} texts")
    if not isinstance(outputs, list) or len(outputs) > MAX_FILES:
        raise BadInput(f"`outputs` must be a list of at most {MAX_FILES} names")
    for name, content in files.items():
        check_name(name, "files")
        check_text(content, f"files/{name}", MAX_FILE)
    for name in outputs:
        check_name(name, "outputs")
    taken = set(files) | {SNIPPET}
    if SNIPPET in files or any(parent in taken for name in files for parent in parents(name)):
        raise BadInput(f"`files`: a name is taken: `{SNIPPET}` is the code, and no file is also a folder")
    return code, stdin, files, outputs


def parents(name):
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def write_files(code, files):
    for name, content in {**files, SNIPPET: code}.items():
        path = os.path.join(WORK, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "x", encoding="utf-8", newline="") as file:
            file.write(content)


class Capture(threading.Thread):
    """Reads a stream to its end and keeps the first MAX_STREAM bytes, so that a flood neither blocks the snippet nor fills us."""

    def __init__(self, stream):
        super().__init__(daemon=True)
        self.stream, self.kept, self.truncated = stream, b"", False
        self.start()

    def run(self):
        with self.stream:
            while chunk := self.stream.read1(65536):
                room = MAX_STREAM - len(self.kept)
                self.kept += chunk[:room]
                self.truncated = self.truncated or len(chunk) > room

    def text(self):
        return self.kept.decode("utf-8", "replace")


def feed(stream, content):
    try:
        with stream:
            stream.write(content)
    except OSError:
        pass  # The snippet does not read it: that is its own business.


def run(stdin):
    """Runs the snippet in a process of its own; what it leaves running is ended with the sandbox."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": WORK, "TMPDIR": "/tmp", "LANG": "C.UTF-8"}
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-B", "-s", SNIPPET], cwd=WORK, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
    )
    out, err = Capture(process.stdout), Capture(process.stderr)
    threading.Thread(target=feed, args=(process.stdin, stdin.encode()), daemon=True).start()
    code = process.wait()
    for capture in (out, err):
        capture.join(PATIENCE_SECONDS)
    return code, out, err


def collect(outputs):
    """The files asked for, as far as they are there, are files, and fit; and the names of the others with the reason."""
    found, missing, room = {}, {}, MAX_OUTPUTS
    for name in outputs:
        try:
            content = read_file(name, room)
        except OSError as error:
            missing[name] = os.strerror(error.errno) if error.errno else "not a file"
            continue
        if content is None:
            missing[name] = f"all files together are longer than {MAX_OUTPUTS} bytes"
            continue
        room -= len(content)
        try:
            found[name] = {"encoding": "utf-8", "content": content.decode()}
        except UnicodeDecodeError:
            found[name] = {"encoding": "base64", "content": base64.b64encode(content).decode()}
    return found, missing


def read_file(name, room):
    path = os.path.join(WORK, name)
    if os.path.realpath(path) != path:
        raise OSError(None, "a link")
    # Neither a link nor a pipe that nobody writes to keeps us.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(None, "not a file")
        content = file.read(room + 1)
    return content if len(content) <= room else None


def answer(raw):
    code, stdin, files, outputs = parse(raw)
    try:
        write_files(code, files)
    except OSError as error:
        raise BadInput(f"the files do not fit into the sandbox: {os.strerror(error.errno)}") from error
    exit_code, out, err = run(stdin)
    found, missing = collect(outputs)
    return {
        # As a shell has it: 128 and the number of the signal that ended it.
        "exit_code": exit_code if exit_code >= 0 else 128 - exit_code,
        "stdout": out.text(),
        "stderr": err.text(),
        "truncated": out.truncated or err.truncated,
        "files": found,
        "missing": missing,
    }


def main():
    try:
        result, status = answer(sys.stdin.buffer.read()), 0
    except BadInput as error:
        result, status = {"error": str(error)}, 1
    sys.stdout.write(json.dumps(result))
    sys.stdout.flush()
    # Not a normal end: that would wait for a stream that something the snippet started still holds.
    os._exit(status)


if __name__ == "__main__":
    main()
