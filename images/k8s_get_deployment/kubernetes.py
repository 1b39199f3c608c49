"""What the tools for Kubernetes share: arguments in, one answer out, and the API server as seen from inside a pod.

The context of a Docker build is one folder, so this file lies in each tool's folder. The copies are the same, and a test in
k8s_get_deployment checks that: change one, and copy it to the others.
"""

import http.client
import json
import os
import re
import ssl
import sys
import urllib.parse

# The executor writes the authority and the token of this call here. No token is mounted.
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
# Longest that connecting, or the wait for the next bytes, may take. The tool's own timeout bounds the whole.
TIMEOUT_SECONDS = 8
# An object in etcd has at most 1.5 MiB; as JSON it is somewhat longer.
MAX_ANSWER = 3 << 20
# Longest text that is passed on from the cluster in one piece.
MAX_TEXT = 1024

# Names as Kubernetes defines them: a label of RFC 1123, and labels with dots between them.
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
# What a bearer token is made of (RFC 6750, section 2.1).
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class BadInput(Exception):
    """The arguments do not fit; the text goes to the caller."""


class Failed(Exception):
    """The API server refused, or cannot be asked; the text goes to the caller."""


class Arguments:
    """The arguments object. Each is taken out once, checked; what is left at the end is unknown."""

    def __init__(self, raw):
        try:
            self.left = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise BadInput("the arguments are no JSON") from error
        if not isinstance(self.left, dict):
            raise BadInput("the arguments must be an object")

    def name(self, key, pattern, what, optional=False):
        if optional and key not in self.left:
            return None
        value = self.left.pop(key, None)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise BadInput(f"`{key}` must be {what}, as Kubernetes allows it")
        return value

    def number(self, key, least, most, default=None, optional=False):
        if optional and key not in self.left:
            return default
        value = self.left.pop(key, None)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise BadInput(f"`{key}` must be a whole number from {least} to {most}")
        return value

    def end(self):
        if self.left:
            raise BadInput(f"unknown argument `{sorted(self.left)[0][:64]}`")


class Api:
    """The API server, over one connection."""

    def __init__(self, connection, token):
        self.connection = connection
        self.token = token

    def ask(self, method, path, what, query=(), body=None, limit=MAX_ANSWER):
        """The first `limit` bytes of a successful answer. `path` is a list of segments, `what` says in words what is asked for."""
        target = "/" + "/".join(urllib.parse.quote(segment, safe="") for segment in path)
        if query:
            target += "?" + urllib.parse.urlencode(query)
        # Of a pod's log, plain text comes back, and the API server wants it to be acceptable.
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json, */*", "User-Agent": "mayfly-tool"}
        if body is not None:
            body = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        try:
            self.connection.request(method, target, body, headers)
            answer = self.connection.getresponse()
            data = answer.read(limit)
            # What is left of this answer would stand before the next one. The connection opens again by itself.
            if not answer.isclosed():
                self.connection.close()
        except (OSError, http.client.HTTPException) as error:
            sys.stderr.write(f"{method} {target}: {type(error).__name__}: {error}\n")
            late = "did not answer in time" if isinstance(error, TimeoutError) else "cannot be reached"
            raise Failed(f"the API server {late}{doubt(method)}") from error
        # A redirect is none of these, and is not followed.
        if not 200 <= answer.status < 300:
            raise Failed(refusal(answer.status, data, what, method))
        return data

    def json(self, method, path, what, body=None):
        """The object that a successful answer holds."""
        data = self.ask(method, path, what, body=body)
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Failed("the API server's answer is no JSON, or too long") from error
        if not isinstance(found, dict):
            raise Failed("the API server's answer is no object")
        return found


def refusal(status, data, what, method):
    """A sentence for a status that is no success."""
    message = said(data)
    sys.stderr.write(f"{method}: {status} {message}\n")
    because = f": {message}" if message else ""
    if status == 401:
        return "the API server does not accept the token of this call"
    if status == 403:
        return f"the cluster does not let this tool do that with {what}{because}"
    if status == 404:
        return f"there is no {what}"
    if status == 409:
        return f"somebody else changed {what} at the same moment, and this call changed nothing; look again before trying again"
    if status == 429:
        return "the API server has too much to do; try again later"
    return f"the API server answered with status {status}{because}{doubt(method) if status >= 500 else ''}"


def doubt(method):
    """What to add when a request may have been carried out although it has no good answer."""
    return "" if method == "GET" else "; whether the change was made is not known, so look before trying again"


def said(data):
    """The message of a `Status` object, or nothing."""
    try:
        status = json.loads(data)
    except (ValueError, RecursionError):
        return ""
    message = status.get("message") if isinstance(status, dict) and status.get("kind") == "Status" else None
    return message[:MAX_TEXT] if isinstance(message, str) else ""


def part(value, *keys):
    """The object below these keys; an empty one where the cluster left it out."""
    for key in keys:
        value = value.get(key) or {}
        if not isinstance(value, dict):
            raise Failed(f"the API server's answer is not as expected: `{key}` is no object")
    return value


def text(value):
    """A text of the cluster, cut; null where there is none."""
    return value[:MAX_TEXT] if isinstance(value, str) else None


def connect():
    """The API server of the cluster that this pod runs in, with the token of this call."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not port.isdecimal():
        raise Failed("this tool has to run in a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT name no API server")
    try:
        with open(os.path.join(ACCOUNT, "token"), encoding="ascii") as file:
            token = file.read().strip()
        context = ssl.create_default_context(cafile=os.path.join(ACCOUNT, "ca.crt"))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{ACCOUNT}: {error}\n")
        raise Failed("this call was given no service account: the token or the cluster's certificate is missing") from error
    if not TOKEN.fullmatch(token):
        raise Failed("the token of this call is none")
    # An IPv6 address may come with brackets, as in a URL, or without, as the kubelet writes it. Certificates are for the latter.
    connection = http.client.HTTPSConnection(host.strip("[]"), int(port), timeout=TIMEOUT_SECONDS, context=context)
    return Api(connection, token)


def run(parse, answer):
    """The tool contract: JSON from standard input to standard output; the exit code."""
    try:
        arguments = parse(sys.stdin.buffer.read())
        result, status = answer(connect(), *arguments), 0
    except (BadInput, Failed) as error:
        result, status = {"error": str(error)}, 1
    sys.stdout.write(json.dumps(result, separators=(",", ":")))
    return status
