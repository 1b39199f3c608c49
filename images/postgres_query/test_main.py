"""What can be decided without a database. The rest is tried with a real one, through the gateway."""

import json
import os
import subprocess
import sys
import unittest

import main


def encoded(text, kind=25):
    return json.loads(main.encode(text, kind))


class Arguments(unittest.TestCase):
    def test_defaults(self):
        self.assertEqual(main.parse(b'{"sql": "SELECT 1"}'), ("SELECT 1", 100, 10))

    def test_what_does_not_fit_is_named(self):
        for raw, named in [
            (b"[", "no JSON"),
            (b"[" * 100_000, "no JSON"),
            (b"[]", "an object"),
            (b"{}", "`sql`"),
            (b'{"sql": ""}', "`sql`"),
            (b'{"sql": 7}', "`sql`"),
            (b'{"sql": "a\\u0000b"}', "`sql`"),
            (b'{"sql": "\\ud800"}', "`sql`"),
            (json.dumps({"sql": "x" * 16385}).encode(), "`sql`"),
            (b'{"sql": "x", "limit": 0}', "`limit`"),
            (b'{"sql": "x", "limit": true}', "`limit`"),
            (b'{"sql": "x", "limit": 1001}', "`limit`"),
            (b'{"sql": "x", "timeout_seconds": 31}', "`timeout_seconds`"),
            (b'{"sql": "x", "user": "postgres"}', "unknown argument `user`"),
        ]:
            with self.assertRaisesRegex(main.Refused, named):
                main.parse(raw)


class Values(unittest.TestCase):
    def test_what_json_has_is_itself(self):
        self.assertEqual(
            [encoded(None), encoded(b"t", 16), encoded(b"f", 16), encoded(b"9223372036854775807", 20), encoded(b"-1.5e-07", 701)],
            [None, True, False, 9223372036854775807, -1.5e-07],
        )
        self.assertEqual(encoded(b'{"a": [1, null]}', 3802), {"a": [1, None]})

    def test_what_json_has_not_is_text(self):
        self.assertEqual(main.encode(b'{"a": 12345678901234567890.10, "b": 2}', 114), '{"a": 12345678901234567890.10, "b": 2}')
        for text, kind in [
            ("NaN", 701), ("-Infinity", 700), ("12345678901234567890.123", 1700), ("1e999", 114), ("[" * 40 + "]" * 40, 114), ("1" * 400, 3802),
            ("18446744073709551616", 3802), ('{"a": 1, "a": 2}', 114), ('{"\\u0000": 1}', 114), ('["\\ud800"]', 114),
        ]:
            self.assertEqual(encoded(text.encode(), kind), text)
        self.assertEqual(encoded(b"\xff\"\n"), "\ufffd\"\n")


class Ceilings(unittest.TestCase):
    def test_rows(self):
        rows = main.Rows(2)
        self.assertEqual([rows.take(["1"]) for _ in range(3)], [True, True, False])
        self.assertEqual((rows.rows, rows.truncated), (["[1]", "[1]"], True))

    def test_bytes(self):
        rows = main.Rows(1000)
        large = ['"' + "x" * (main.MAX_BYTES // 4) + '"']
        taken = 0
        while rows.take(large):
            taken += 1
        self.assertEqual((taken, rows.truncated), (3, True))

    def test_bytes_are_not_characters(self):
        rows = main.Rows(1000)
        large = [main.encode(("\u6f22" * (main.MAX_BYTES // 16)).join('""').encode(), 114)]
        while rows.take(large):
            pass
        self.assertEqual(len(rows.rows), 5)


class Program(unittest.TestCase):
    def run_with(self, url):
        environment = {"DATABASE_URL": url} if url else {}
        run = subprocess.run(
            [sys.executable, os.path.join(os.path.dirname(__file__), "main.py")], input=b'{"sql": "SELECT 1"}', env=environment, capture_output=True, check=False
        )
        return run.returncode, json.loads(run.stdout)["error"], run.stderr

    def test_without_a_database_it_says_so_and_keeps_the_password(self):
        status, error, log = self.run_with("postgres://u:canary@127.0.0.1:1/d")
        self.assertEqual(status, 1)
        self.assertIn("cannot be reached", error)
        self.assertNotIn(b"canary", error.encode() + log)
        self.assertIn("credential is missing", self.run_with(None)[1])


if __name__ == "__main__":
    unittest.main()
