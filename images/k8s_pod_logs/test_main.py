"""Run with `python3 -B -m unittest` in this folder."""

import json
import unittest
import urllib.parse

import kubernetes
import main
from fake_api import FakeApi, status


def log_of(lines):
    """Answers as the kubelet does: the last `tailLines`, and of those the first `limitBytes`."""

    def answer(asked):
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(asked["path"]).query))
        log = b"".join(line + b"\n" for line in lines[-int(query["tailLines"]) :])
        return 200, log[: int(query["limitBytes"])]

    return answer


class Parsing(unittest.TestCase):
    def test_what_fits(self):
        self.assertEqual(main.parse(b'{"namespace": "staging", "pod": "api-0"}'), ("staging", "api-0", None, 100, None))
        raw = b'{"namespace": "s", "pod": "p", "container": "c", "tail_lines": 2000, "since_seconds": 60}'
        self.assertEqual(main.parse(raw), ("s", "p", "c", 2000, 60))

    def test_what_does_not(self):
        fits = {"namespace": "staging", "pod": "api-0"}
        for wrong in ({"tail_lines": 0}, {"tail_lines": 2001}, {"tail_lines": None}, {"since_seconds": 0}, {"container": "a&b"}, {"container": None}, {"pod": "a/b"}, {"follow": True}):
            with self.subTest(wrong=wrong), self.assertRaises(kubernetes.BadInput):
                main.parse(json.dumps(fits | wrong).encode())


class Answering(unittest.TestCase):
    def ask(self, *answers, container=None, wanted=100, since=None):
        self.fake = FakeApi(self, *answers)
        return main.answer(self.fake.api, "staging", "api-0", container, wanted, since)

    def test_the_newest_lines_and_whether_there_are_older_ones(self):
        lines = [f"line {n}".encode() for n in range(5)]
        self.assertEqual(self.ask(log_of(lines), wanted=2), {"lines": ["line 3", "line 4"], "truncated": True})
        self.assertEqual(self.ask(log_of(lines), wanted=5), {"lines": [line.decode() for line in lines], "truncated": False})

    def test_what_is_asked_for(self):
        self.ask((200, b""), container="api", wanted=7, since=60)
        self.assertEqual(self.fake.asked[0]["path"], "/api/v1/namespaces/staging/pods/api-0/log?container=api&sinceSeconds=60&tailLines=8&limitBytes=262145")
        self.ask((200, b""))
        self.assertNotIn("container", self.fake.asked[0]["path"])
        self.assertNotIn("sinceSeconds", self.fake.asked[0]["path"])

    def test_empty_logs_empty_lines_and_a_last_line_without_an_end(self):
        for log, lines in ((b"", []), (b"\n", [""]), (b"a\n\nb\n", ["a", "", "b"]), (b"a\nb", ["a", "b"])):
            self.assertEqual(self.ask((200, log)), {"lines": lines, "truncated": False})

    def test_invalid_utf_8_is_replaced(self):
        self.assertEqual(self.ask((200, b"a\xffb\n\xc3\n"))["lines"], ["a\ufffdb", "\ufffd"])

    def test_of_too_long_a_log_the_newest_lines_are_kept(self):
        lines = [b"%06d" % n + b"x" * 994 for n in range(2000)]
        result = self.ask(*[log_of(lines)] * 30, wanted=1500)
        self.assertTrue(result["truncated"])
        self.assertEqual(result["lines"][-1], lines[-1].decode())
        self.assertEqual(result["lines"], [line.decode() for line in lines[-len(result["lines"]) :]])
        self.assertGreater(len(result["lines"]), 200, "most of what fits is there")

    def test_it_ends_where_the_newest_line_alone_is_too_long(self):
        result = self.ask(*[log_of([b"a", b"b" * (2 * main.MAX_BYTES)])] * 30, wanted=main.MAX_LINES)
        self.assertEqual(result, {"lines": ["b" * main.MAX_BYTES], "truncated": True})

    def test_the_worst_log_stays_below_the_output_limit(self):
        for log in (b"\xff" * main.MAX_BYTES, b"\0" * main.MAX_BYTES, b"\n" * main.MAX_LINES + b"\0" * (main.MAX_BYTES - main.MAX_LINES)):
            result = self.ask((200, log), wanted=main.MAX_LINES)
            self.assertLess(len(json.dumps(result, separators=(",", ":"))), 2 << 20)

    def test_a_container_has_to_be_chosen(self):
        with self.assertRaisesRegex(kubernetes.Failed, "choose one of"):
            self.ask(status(400, "a container name must be specified for pod api-0, choose one of: [api proxy]"))


if __name__ == "__main__":
    unittest.main()
