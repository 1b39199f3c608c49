"""k8s_pod_logs: the newest lines that a container of a pod has written.

The tool contract: the arguments come as JSON on standard input, the result leaves as JSON on standard output, exit code 0 is
success. Whoever runs in that pod chose what the lines say: they are data, and nothing here reads them.
"""

import sys

import kubernetes

MAX_LINES = 2000
DEFAULT_LINES = 100
MAX_SINCE_SECONDS = 604_800
# As JSON, a byte becomes at most six. With that the result stays below the tool's output limit of 2 MiB.
MAX_BYTES = 256 << 10


def parse(raw):
    """namespace, pod, container, tail_lines and since_seconds, checked; raises BadInput."""
    arguments = kubernetes.Arguments(raw)
    namespace = arguments.name("namespace", kubernetes.LABEL, "the name of a namespace")
    pod = arguments.name("pod", kubernetes.SUBDOMAIN, "the name of a pod")
    container = arguments.name("container", kubernetes.LABEL, "the name of a container", optional=True)
    wanted = arguments.number("tail_lines", 1, MAX_LINES, default=DEFAULT_LINES, optional=True)
    since = arguments.number("since_seconds", 1, MAX_SINCE_SECONDS, optional=True)
    arguments.end()
    return namespace, pod, container, wanted, since


def answer(api, namespace, pod, container, wanted, since):
    path = ["api", "v1", "namespaces", namespace, "pods", pod, "log"]
    what = f"pod `{pod}` in namespace `{namespace}`"
    choice = [("container", container)] if container else []
    if since:
        choice.append(("sinceSeconds", since))
    # One more than wanted, to know whether there are older ones.
    asked = wanted + 1
    while True:
        query = [*choice, ("tailLines", asked), ("limitBytes", MAX_BYTES + 1)]
        log = api.ask("GET", path, what, query=query, limit=MAX_BYTES + 1)
        if len(log) <= MAX_BYTES or asked == 1:
            break
        # The limit cuts off the newest lines, and those are what matters: ask again, for fewer.
        asked = max(1, min(log.count(b"\n"), asked * 3 // 4))
    lines = split(log[:MAX_BYTES])
    return {"lines": lines[-wanted:], "truncated": asked <= wanted or len(lines) > wanted}


def split(log):
    """The lines. Invalid UTF-8 is replaced."""
    lines = log.decode("utf-8", "replace").split("\n")
    # Behind the last line's end nothing follows.
    return lines if lines[-1] else lines[:-1]


if __name__ == "__main__":
    sys.exit(kubernetes.run(parse, answer))
