"""An API server for tests: plain HTTP on loopback, answers in the order they are given, and remembers what it was asked.

The same file in each tool's folder, as kubernetes.py is.
"""

import http.client
import http.server
import json
import socket
import threading

import kubernetes


class FakeApi:
    """`answers` are (status, body), or functions of the request that give one. A body is bytes, or an object to send as JSON."""

    def __init__(self, test, *answers, host="127.0.0.1"):
        self.asked = []
        self.answers = list(answers)
        self.server = (Server6 if ":" in host else http.server.ThreadingHTTPServer)((host, 0), handler(self))
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        test.addCleanup(self.server.server_close)
        test.addCleanup(self.server.shutdown)
        self.connection = http.client.HTTPConnection(host, self.server.server_port, timeout=5)
        test.addCleanup(self.connection.close)
        self.api = kubernetes.Api(self.connection, "t0ken")


class Server6(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


def status(code, message):
    """What the API server sends with a status that is no success."""
    return code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


def handler(fake):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length)) if length else None
            asked = {"method": self.command, "path": self.path, "headers": dict(self.headers), "body": body}
            fake.asked.append(asked)
            given = fake.answers.pop(0)
            code, body = given(asked) if callable(given) else given
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(code)
            if 300 <= code < 400:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = answer

        def log_message(self, *_):
            pass

    return Handler
