"""Run with `python3 -m unittest` in this folder. The sandbox's own limits are tested where the sandbox is."""

import json
import os
import tempfile
import time
import unittest

import main


class BadInput(unittest.TestCase):
    def refused(self, message, raw):
        with self.assertRaises(main.BadInput) as caught:
            main.parse(raw)
        self.assertIn(message, str(caught.exception))
        self.assertNotIn("\n", str(caught.exception))

    def refused_arguments(self, message, **arguments):
        self.refused(message, json.dumps(arguments).encode())

    def test_no_json_or_no_object(self):
        for raw in (b"", b"{", b"\xff\xfe\x00", b"[" * 100_000):
            self.refused("no JSON", raw)
        for raw in (b"[]", b"1", b"null"):
            self.refused("an object", raw)

    def test_code_is_required_text_within_its_bound(self):
        self.refused_arguments("`code`")
        self.refused_arguments("`code`", code=1)
        self.refused_arguments("`code`", code="x" * (main.MAX_CODE + 1))
        self.refused("surrogate", b'{"code": "\\ud800"}')

    def test_unknown_arguments(self):
        self.refused_arguments("unknown argument `shell`", code="", shell=True)

    def test_names_that_leave_the_folder_or_hide(self):
        names = ["../x", "/etc/passwd", "a/../../x", "a/./x", ".x", "-x", "", "a//b", "a\\b", "a\0b", "a b", "é", "a/", "x" * 65, "a/b/c/d/e", "a\n"]
        for name in names:
            with self.subTest(name=name):
                self.refused_arguments("`files`", code="", files={name: ""})
                self.refused_arguments("`outputs`", code="", outputs=[name])

    def test_names_that_clash(self):
        self.refused_arguments("taken", code="", files={"main.py": ""})
        self.refused_arguments("taken", code="", files={"a": "", "a/b": ""})
        self.refused_arguments("taken", code="", files={"main.py/b": ""})

    def test_too_many_or_too_long(self):
        self.refused_arguments("`files`", code="", files={f"f{n}": "" for n in range(main.MAX_FILES + 1)})
        self.refused_arguments("`files/f`", code="", files={"f": "x" * (main.MAX_FILE + 1)})
        self.refused_arguments("`files/f`", code="", files={"f": 1})
        self.refused_arguments("`files`", code="", files=[])
        self.refused_arguments("`outputs`", code="", outputs=["x"] * (main.MAX_FILES + 1))
        self.refused_arguments("`outputs`", code="", outputs="x")
        self.refused_arguments("`stdin`", code="", stdin="x" * (main.MAX_STDIN + 1))


class Running(unittest.TestCase):
    def run_snippet(self, code, **arguments):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        main.WORK = os.path.join(os.path.realpath(folder.name), "work")
        return main.answer(json.dumps({"code": code, **arguments}).encode())

    def test_files_in_and_out(self):
        result = self.run_snippet(
            "import helper, sys\nopen('out.txt', 'w', newline='').write(helper.x + open('data/in.txt', newline='').read() + sys.stdin.read())\nprint('done')",
            files={"helper.py": "x = 'a'", "data/in.txt": "b\r\n"},
            stdin="c",
            outputs=["out.txt", "none.txt"],
        )
        self.assertEqual(result["exit_code"], 0, result)
        self.assertEqual(result["stdout"], "done\n")
        self.assertEqual(result["files"], {"out.txt": {"encoding": "utf-8", "content": "ab\r\nc"}})
        self.assertEqual(result["missing"], {"none.txt": "No such file or directory"})

    def test_a_snippet_that_fails_is_a_result(self):
        self.assertEqual(self.run_snippet("raise SystemExit(3)")["exit_code"], 3)
        failed = self.run_snippet("1/0")
        self.assertEqual(failed["exit_code"], 1)
        self.assertIn("ZeroDivisionError", failed["stderr"])
        self.assertEqual(self.run_snippet("import os; os.kill(os.getpid(), 9)")["exit_code"], 137)
        self.assertEqual(self.run_snippet("not python")["exit_code"], 1)

    def test_a_flood_is_cut_and_does_not_block(self):
        result = self.run_snippet("import sys\nfor _ in range(64): sys.stdout.write('x' * 65536); sys.stderr.write('y' * 65536)")
        self.assertEqual((result["exit_code"], result["truncated"]), (0, True))
        self.assertEqual((len(result["stdout"]), len(result["stderr"])), (main.MAX_STREAM, main.MAX_STREAM))

    def test_input_that_nobody_reads_does_not_block(self):
        self.assertEqual(self.run_snippet("pass", stdin="x" * main.MAX_STDIN)["exit_code"], 0)

    def test_a_daemon_that_holds_the_streams_does_not_keep_the_answer(self):
        begun = time.monotonic()
        result = self.run_snippet("import subprocess\nsubprocess.Popen(['sleep', '20'], start_new_session=True)\nprint('gone')")
        self.assertLess(time.monotonic() - begun, 5)
        self.assertEqual(result["stdout"], "gone\n")

    def test_only_files_come_out(self):
        result = self.run_snippet(
            "import os\nos.symlink('/etc/passwd', 'link')\nos.symlink('/etc', 'folder')\nos.mkfifo('pipe')\nos.mkdir('dir')\nopen('bin', 'wb').write(b'\\xff')",
            outputs=["link", "folder/passwd", "pipe", "dir", "bin"],
        )
        self.assertEqual(result["files"], {"bin": {"encoding": "base64", "content": "/w=="}})
        self.assertEqual(sorted(result["missing"]), ["dir", "folder/passwd", "link", "pipe"])

    def test_files_out_have_a_ceiling(self):
        result = self.run_snippet(f"open('a', 'w').write('x' * {main.MAX_OUTPUTS})\nopen('b', 'w').write('y')", outputs=["a", "b"])
        self.assertEqual(list(result["files"]), ["a"])
        self.assertIn("longer", result["missing"]["b"])

    def test_the_snippet_sees_none_of_our_environment(self):
        os.environ["CANARY"] = "sings"
        self.addCleanup(os.environ.pop, "CANARY")
        self.assertNotIn("CANARY", self.run_snippet("import os; print(sorted(os.environ))")["stdout"])


if __name__ == "__main__":
    unittest.main()
