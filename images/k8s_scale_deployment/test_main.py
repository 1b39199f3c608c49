"""Run with `python3 -B -m unittest` in this folder."""

import unittest

import kubernetes
import main
from fake_api import FakeApi, status


def scale(replicas, version="7"):
    """A Scale object as the API server writes it: a count of 0 is left out."""
    spec = {"replicas": replicas} if replicas else {}
    return {"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": {"name": "api", "namespace": "staging", "resourceVersion": version, "uid": "u"}, "spec": spec, "status": {}}


class Parsing(unittest.TestCase):
    def test_what_fits(self):
        for replicas in (0, 1000):
            raw = f'{{"namespace": "staging", "name": "api", "desired_replicas": {replicas}}}'
            self.assertEqual(main.parse(raw.encode()), ("staging", "api", replicas))

    def test_what_does_not(self):
        for replicas in ("-1", "1001", "true", "null", '"3"', "1.5", "1e2", "[3]"):
            raw = f'{{"namespace": "staging", "name": "api", "desired_replicas": {replicas}}}'
            with self.subTest(raw=raw), self.assertRaises(kubernetes.BadInput):
                main.parse(raw.encode())
        for raw in (b"{}", b'{"namespace": "staging", "name": "api"}', b'{"namespace": "s", "name": "a", "desired_replicas": 1, "force": true}'):
            with self.subTest(raw=raw), self.assertRaises(kubernetes.BadInput):
                main.parse(raw)


class Answering(unittest.TestCase):
    def ask(self, desired, *answers):
        self.fake = FakeApi(self, *answers)
        return main.answer(self.fake.api, "staging", "api", desired)

    def methods(self):
        return [asked["method"] for asked in self.fake.asked]

    def test_what_was_read_is_what_is_replaced(self):
        result = self.ask(5, (200, scale(3)), lambda asked: (200, scale(asked["body"]["spec"]["replicas"], "8")))
        self.assertEqual(result, {"name": "api", "namespace": "staging", "previous_replicas": 3, "replicas": 5, "changed": True})
        self.assertEqual(self.methods(), ["GET", "PUT"])
        self.assertEqual({asked["path"] for asked in self.fake.asked}, {"/apis/apps/v1/namespaces/staging/deployments/api/scale"})
        self.assertEqual(
            self.fake.asked[1]["body"],
            {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "api", "namespace": "staging", "resourceVersion": "7"}, "spec": {"replicas": 5}},
        )

    def test_zero_is_a_count(self):
        self.assertEqual(self.ask(0, (200, scale(3)), (200, scale(0)))["replicas"], 0)
        self.assertEqual(self.fake.asked[1]["body"]["spec"], {"replicas": 0})
        self.assertEqual(self.ask(2, (200, scale(0)), (200, scale(2)))["previous_replicas"], 0)

    def test_what_is_so_already_is_not_written(self):
        self.assertFalse(self.ask(3, (200, scale(3)))["changed"])
        self.assertEqual(self.methods(), ["GET"])

    def test_somebody_else_was_faster(self):
        with self.assertRaisesRegex(kubernetes.Failed, "somebody else changed Deployment `api`.*changed nothing"):
            self.ask(5, (200, scale(3)), status(409, "the object has been modified"))
        self.assertEqual(self.methods(), ["GET", "PUT"], "it is for the agent to look again")

    def test_without_a_version_nothing_is_written(self):
        for version in ("", None):
            with self.assertRaisesRegex(kubernetes.Failed, "no version"):
                self.ask(5, (200, scale(3, version)))
            self.assertEqual(self.methods(), ["GET"])

    def test_refusals_are_told(self):
        with self.assertRaisesRegex(kubernetes.Failed, "there is no Deployment"):
            self.ask(5, status(404, "not found"))
        with self.assertRaisesRegex(kubernetes.Failed, "does not let this tool.*cannot update"):
            self.ask(5, (200, scale(3)), status(403, "cannot update"))
        with self.assertRaisesRegex(kubernetes.Failed, "not known"):
            self.ask(5, (200, scale(3)), status(504, "timeout"))


if __name__ == "__main__":
    unittest.main()
