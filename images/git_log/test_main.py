"""Run with `python3 -m unittest` in this folder; needs git."""

import json
import os
import subprocess
import tempfile
import unittest

import main


class BadInput(unittest.TestCase):
    def refused(self, message, **arguments):
        with self.assertRaises(main.BadInput) as caught:
            main.parse(json.dumps(arguments).encode())
        self.assertIn(message, str(caught.exception))

    def test_no_json_or_no_object(self):
        for raw in (b"", b"[]", b"\xff", b"[" * 100_000, b'"HEAD"'):
            with self.assertRaises(main.BadInput):
                main.parse(raw)

    def test_a_ref_that_is_no_single_name(self):
        refs = ["--all", "-n1", "--output=/tmp/x", "", "a..b", "HEAD...x", "HEAD:x", "@{u}", "a b", "a\nb", "a\0", "^HEAD", ":/x", "HEAD\n", "é", "a" * 400, 1, None]
        for ref in refs:
            with self.subTest(ref=ref):
                self.refused("`ref`", ref=ref)

    def test_a_path_that_leaves(self):
        for path in ["/etc", "../x", "a/../../x", "", "a\0b", "a\n", "x" * 1025, 1]:
            with self.subTest(path=path):
                self.refused("`path`", path=path)

    def test_since_and_limit_and_the_unknown(self):
        for since in ["yesterday", "2026-1-1", "2026-01-01 --all", "", 1]:
            self.refused("`since`", since=since)
        for limit in [0, 201, -1, "5", 1.5, True, None]:
            self.refused("`limit`", limit=limit)
        self.refused("unknown argument `repo`", repo="/etc")


class Repository(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        main.REPO = self.repo = os.path.realpath(folder.name)
        self.git("init", "-q", "-b", "main")
        for number in range(3):
            self.commit(f"f{number}", f"Subject {number}", f"2026-01-0{number + 1}T00:00:00Z")

    def git(self, *arguments, date="2026-01-01T00:00:00Z"):
        identity = {f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (("NAME", "Ada é"), ("EMAIL", "a@b"), ("DATE", date))}
        subprocess.run([main.GIT, "-C", self.repo, *arguments], check=True, capture_output=True, env={**main.ENVIRONMENT, **identity})

    def commit(self, name, subject, date):
        with open(os.path.join(self.repo, name), "w", encoding="utf-8") as file:
            file.write(subject)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", subject, date=date)

    def ask(self, **arguments):
        return main.answer(json.dumps(arguments).encode())

    def subjects(self, **arguments):
        return [commit["subject"] for commit in self.ask(**arguments)["commits"]]

    def test_the_history_newest_first(self):
        result = self.ask()
        self.assertEqual((result["count"], result["truncated"]), (3, False))
        first = result["commits"][0]
        self.assertRegex(first.pop("sha"), "^[0-9a-f]{40}$")
        self.assertEqual(first, {"author": "Ada é", "date": "2026-01-03T00:00:00+00:00", "subject": "Subject 2"})

    def test_ref_path_since_and_limit_narrow_it(self):
        self.assertEqual(self.subjects(ref="main~1"), ["Subject 1", "Subject 0"])
        self.assertEqual(self.subjects(path="f1"), ["Subject 1"])
        self.assertEqual(self.subjects(path="--all"), [])
        self.assertEqual(self.subjects(path=":(top)f1"), [], "a path is a path, not a pattern")
        self.assertEqual(self.subjects(since="2026-01-02T00:00:00Z"), ["Subject 2", "Subject 1"])
        self.assertEqual(self.subjects(since="2026-01-02"), ["Subject 2", "Subject 1"], "a date begins at midnight")
        result = self.ask(limit=2)
        self.assertEqual((result["count"], len(result["commits"]), result["truncated"]), (2, 2, True))

    def test_what_is_not_there_is_said(self):
        with self.assertRaisesRegex(main.BadInput, "no commit `nope`"):
            self.ask(ref="nope")
        main.REPO = "/nonexistent"
        with self.assertRaisesRegex(main.BadInput, "no readable git repository"):
            self.ask()

    def test_the_repository_cannot_make_git_run_anything(self):
        marker = os.path.join(self.repo, "ran")
        trap = os.path.join(self.repo, "trap")
        with open(trap, "w", encoding="utf-8") as file:
            file.write(f"#!/bin/sh\ntouch {marker}\n")
        os.chmod(trap, 0o755)
        for key in ("core.fsmonitor", "core.pager", "core.sshCommand", "gpg.program", "diff.external", "core.hooksPath", "credential.helper"):
            self.git("config", key, trap)
        for key, value in (("log.showSignature", "true"), ("protocol.ext.allow", "always"), ("extensions.partialClone", "origin"), ("remote.origin.promisor", "true"), ("remote.origin.url", f"ext::{trap}")):
            self.git("config", key, value)
        self.git("config", "core.repositoryFormatVersion", "1")
        self.assertEqual(len(self.subjects(path="f1")), 1)
        # A commit whose tree is missing would be fetched, by a command of the repository's choice.
        with self.assertRaises(main.BadInput):
            self.ask(ref="0123456789012345678901234567890123456789")
        self.assertFalse(os.path.exists(marker))


if __name__ == "__main__":
    unittest.main()
