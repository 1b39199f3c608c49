"""Run with `python3 -B -m unittest` in this folder. These are the tests of kubernetes.py, which the other tools have copies of."""

import contextlib
import http.client
import io
import json
import os
import pathlib
import socket
import tempfile
import unittest
import unittest.mock

import kubernetes
from fake_api import FakeApi, status


class Copies(unittest.TestCase):
    def test_the_copies_are_the_same(self):
        here = pathlib.Path(__file__).resolve().parent
        for name in ("kubernetes.py", "fake_api.py"):
            # In the image's own test, no other tool is there.
            for copy in here.parent.glob(f"k8s_*/{name}"):
                with self.subTest(copy=copy):
                    self.assertEqual(copy.read_bytes(), (here / name).read_bytes())


class ArgumentsOf(unittest.TestCase):
    def test_no_json_or_no_object(self):
        for raw in (b"", b"{", b"\xff", b"[" * 100_000):
            with self.assertRaisesRegex(kubernetes.BadInput, "no JSON"):
                kubernetes.Arguments(raw)
        for raw in (b"[]", b"1", b"null"):
            with self.assertRaisesRegex(kubernetes.BadInput, "an object"):
                kubernetes.Arguments(raw)

    def test_names_that_are_none(self):
        names = ["", "-a", "a-", "A", "a_b", "a/b", "../a", "a b", "a\n", "é", "a%2f", "..", ".", ".a", "a.", "a..b", 1, None, ["a"]]
        for name in names:
            for pattern in (kubernetes.LABEL, kubernetes.SUBDOMAIN):
                with self.subTest(name=name), self.assertRaisesRegex(kubernetes.BadInput, "`n` must be"):
                    kubernetes.Arguments(json.dumps({"n": name})).name("n", pattern, "a name")
        for name, pattern in (("a" * 64, kubernetes.LABEL), ("a.b", kubernetes.LABEL), ("a" * 254, kubernetes.SUBDOMAIN)):
            with self.assertRaises(kubernetes.BadInput):
                kubernetes.Arguments(json.dumps({"n": name})).name("n", pattern, "a name")

    def test_names_that_are(self):
        for name, pattern in (("a", kubernetes.LABEL), ("0-" + "a" * 61, kubernetes.LABEL), ("a.b-c.0", kubernetes.SUBDOMAIN), ("a" * 253, kubernetes.SUBDOMAIN)):
            self.assertEqual(kubernetes.Arguments(json.dumps({"n": name})).name("n", pattern, "a name"), name)

    def test_numbers_and_the_unknown(self):
        for number in (-1, 11, 1.5, "5", True, None, []):
            with self.subTest(number=number), self.assertRaisesRegex(kubernetes.BadInput, "from 0 to 10"):
                kubernetes.Arguments(json.dumps({"n": number})).number("n", 0, 10)
        with self.assertRaisesRegex(kubernetes.BadInput, "from 0 to 10"):
            kubernetes.Arguments(b"{}").number("n", 0, 10)
        self.assertEqual(kubernetes.Arguments(b"{}").number("n", 0, 10, default=4, optional=True), 4)
        with self.assertRaisesRegex(kubernetes.BadInput, "unknown argument `x`"):
            kubernetes.Arguments(b'{"x": 1}').end()


class Asking(unittest.TestCase):
    def setUp(self):
        # What is written for the log.
        self.log = self.enterContext(contextlib.redirect_stderr(io.StringIO()))

    def failure(self, answer, method="GET"):
        fake = FakeApi(self, answer)
        with self.assertRaises(kubernetes.Failed) as caught:
            fake.api.json(method, ["api", "v1"], "pod `p`")
        self.assertEqual(len(fake.asked), 1, "nothing is tried again, and no redirect is followed")
        self.assertNotIn("t0ken", str(caught.exception) + self.log.getvalue())
        return str(caught.exception)

    def test_a_request_carries_the_token_and_quotes_its_path(self):
        fake = FakeApi(self, (200, {"a": 1}))
        self.assertEqual(fake.api.json("GET", ["api", "a/b?c#d"], "it"), {"a": 1})
        self.assertEqual((fake.asked[0]["path"], fake.asked[0]["body"]), ("/api/a%2Fb%3Fc%23d", None))
        self.assertEqual(fake.asked[0]["headers"]["Authorization"], "Bearer t0ken")

    def test_a_status_becomes_a_sentence(self):
        self.assertEqual(self.failure(status(404, 'pods "p" not found')), "there is no pod `p`")
        self.assertIn("User x cannot get", self.failure(status(403, "User x cannot get pods")))
        self.assertIn("does not accept the token", self.failure(status(401, "Unauthorized")))
        self.assertIn("changed nothing", self.failure(status(409, "the object has been modified"), "PUT"))
        self.assertIn("too much to do", self.failure(status(429, "slow down")))
        self.assertIn("status 400: choose one of: [a b]", self.failure(status(400, "choose one of: [a b]")))
        self.assertIn("status 302", self.failure((302, b"")))

    def test_a_status_that_is_none_and_a_long_one(self):
        for body in (b"", b"<html>", b"[]", b'{"kind": "Status"}', b'{"kind": "Status", "message": 7}'):
            self.assertEqual(self.failure((500, body)), "the API server answered with status 500")
        self.assertLess(len(self.failure(status(400, "x" * 100_000))), 2 * kubernetes.MAX_TEXT)

    def test_a_change_without_an_answer_is_in_doubt(self):
        self.assertIn("not known", self.failure(status(504, "timeout"), "PUT"))
        self.assertNotIn("not known", self.failure(status(504, "timeout")))

    def test_answers_that_are_no_object_or_too_long(self):
        self.assertIn("no JSON", self.failure((200, b"hello")))
        self.assertIn("no object", self.failure((200, [])))
        self.assertIn("too long", self.failure((200, {"x": "y" * kubernetes.MAX_ANSWER})))
        with self.assertRaisesRegex(kubernetes.Failed, "`spec` is no object"):
            kubernetes.part({"spec": [1]}, "spec")

    def test_what_is_left_of_an_answer_is_not_the_next_one(self):
        fake = FakeApi(self, (200, b"abcdef"), (200, b"xyz"))
        self.assertEqual(fake.api.ask("GET", ["a"], "it", limit=3), b"abc")
        self.assertEqual(fake.api.ask("GET", ["a"], "it", limit=3), b"xyz")

    def test_a_server_that_is_not_there_or_says_nothing(self):
        silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        port = silent.getsockname()[1]
        api = kubernetes.Api(http.client.HTTPConnection("127.0.0.1", port, timeout=0.2), "t0ken")
        with self.assertRaisesRegex(kubernetes.Failed, "in time; whether the change was made is not known"):
            api.json("PUT", ["a"], "it", body={})
        silent.close()
        api = kubernetes.Api(http.client.HTTPConnection("127.0.0.1", port, timeout=1), "t0ken")
        with self.assertRaisesRegex(kubernetes.Failed, "cannot be reached$"):
            api.json("GET", ["a"], "it")


# The authority of a cluster that is gone: a certificate without a key.
AUTHORITY = """-----BEGIN CERTIFICATE-----
MIIBdDCCARugAwIBAgIUfFDlsXv32oHZC21cm2Zsly8MCmwwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjExNTI2NDNaGA8yMTI2MTAyODE1MjY0
M1owDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABFrA
6COuGl7gu3cjiDd2eh0yQC5F6w8z59wqiAaX+cxmU5ecKVz+wJktqPb7Qqv4GdNe
F8ulEMaBAxidEJh3tR6jUzBRMB0GA1UdDgQWBBQMLwLUqXIJA3cQti1gScV41iEX
sDAfBgNVHSMEGDAWgBQMLwLUqXIJA3cQti1gScV41iEXsDAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0cAMEQCICsBDtzeNu0V5k5KPrMRSjJxnuiZh55dMysf
dpJNcX8ZAiBKsavizHN1fRx1OREv+qPFZzE1gcMOqO19WLF09Up05A==
-----END CERTIFICATE-----
"""


class Connecting(unittest.TestCase):
    def connect(self, token="a.b-c_d", authority=AUTHORITY, **environment):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        for name, content in (("token", token), ("ca.crt", authority)):
            if content is not None:
                pathlib.Path(folder, name).write_text(content, encoding="utf-8")
        environment = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", **environment}
        with unittest.mock.patch.object(kubernetes, "ACCOUNT", folder), unittest.mock.patch.dict(os.environ, environment, clear=True):
            with contextlib.redirect_stderr(io.StringIO()):
                return kubernetes.connect()

    def test_host_and_port_come_from_the_environment(self):
        for given, host in (("10.96.0.1", "10.96.0.1"), ("fd00::1", "fd00::1"), ("[fd00::1]", "fd00::1"), ("api.example", "api.example")):
            api = self.connect(token="a.b\n", KUBERNETES_SERVICE_HOST=given, KUBERNETES_SERVICE_PORT="6443")
            self.assertEqual((api.connection.host, api.connection.port, api.token), (host, 6443, "a.b"))

    def test_only_the_cluster_s_authority_is_trusted(self):
        context = self.connect().connection._context
        self.assertEqual((context.verify_mode.name, context.check_hostname), ("CERT_REQUIRED", True))
        self.assertEqual(len(context.get_ca_certs()), 1)

    def test_what_is_missing_is_said(self):
        for environment in ({"KUBERNETES_SERVICE_HOST": ""}, {"KUBERNETES_SERVICE_PORT": "https"}):
            with self.assertRaisesRegex(kubernetes.Failed, "in a pod"):
                self.connect(**environment)
        for missing in ({"token": None}, {"authority": None}, {"authority": "none"}, {"token": "é"}):
            with self.subTest(missing=missing), self.assertRaisesRegex(kubernetes.Failed, "no service account"):
                self.connect(**missing)
        for token in ("", "a\nb", "a b"):
            with self.assertRaisesRegex(kubernetes.Failed, "token of this call"):
                self.connect(token=token)

    def test_an_ipv6_server_is_reached(self):
        try:
            fake = FakeApi(self, (200, {}), host="::1")
        except OSError:
            self.skipTest("this machine has no IPv6 loopback")
        self.assertEqual(fake.api.json("GET", ["api"], "it"), {})


class Running(unittest.TestCase):
    def run_with(self, parse):
        out = io.StringIO()
        stdin = unittest.mock.Mock(buffer=io.BytesIO(b"{}"))
        with unittest.mock.patch("sys.stdin", stdin), contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            with unittest.mock.patch.object(kubernetes, "connect", lambda: None):
                return kubernetes.run(parse, lambda _, given: {"given": given}), out.getvalue()

    def test_a_result_and_an_error(self):
        self.assertEqual(self.run_with(lambda raw: (raw.decode(),)), (0, '{"given":"{}"}'))

        def refuse(_):
            raise kubernetes.BadInput("no")

        self.assertEqual(self.run_with(refuse), (1, '{"error":"no"}'))


if __name__ == "__main__":
    unittest.main()
