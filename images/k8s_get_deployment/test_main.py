"""Run with `python3 -B -m unittest` in this folder."""

import json
import unittest

import kubernetes
import main
from fake_api import FakeApi, status

DEPLOYMENT = {
    "kind": "Deployment",
    "metadata": {"name": "api-server", "namespace": "staging", "generation": 4, "creationTimestamp": "2027-03-01T08:00:00Z", "managedFields": [{"manager": "x"}]},
    "spec": {
        "replicas": 3,
        "template": {"spec": {"containers": [{"name": "api", "image": "shop/api:1.4.2", "env": [{"name": "PASSWORD", "value": "hunter2"}]}]}},
    },
    "status": {
        "observedGeneration": 4,
        "readyReplicas": 2,
        "updatedReplicas": 3,
        "availableReplicas": 2,
        "unavailableReplicas": 1,
        "conditions": [
            {"type": "Available", "status": "False", "reason": "MinimumReplicasUnavailable", "message": "x" * 5000, "lastTransitionTime": "2027-03-01T09:00:00Z"},
        ],
    },
}


class Parsing(unittest.TestCase):
    def test_what_fits(self):
        self.assertEqual(main.parse(b'{"namespace": "staging", "name": "api.v2"}'), ("staging", "api.v2"))

    def test_what_does_not(self):
        for raw in (b"{}", b'{"namespace": "staging"}', b'{"namespace": "a.b", "name": "x"}', b'{"namespace": "a/../b", "name": "x"}', b'{"namespace": "a", "name": "b", "c": 1}'):
            with self.subTest(raw=raw), self.assertRaises(kubernetes.BadInput):
                main.parse(raw)


class Answering(unittest.TestCase):
    def ask(self, *answers):
        self.fake = FakeApi(self, *answers)
        return main.answer(self.fake.api, "staging", "api-server")

    def test_a_deployment_in_short(self):
        result = self.ask((200, DEPLOYMENT))
        self.assertEqual([(asked["method"], asked["path"]) for asked in self.fake.asked], [("GET", "/apis/apps/v1/namespaces/staging/deployments/api-server")])
        condition = result["conditions"].pop()
        self.assertEqual((condition["type"], condition["status"], len(condition["message"])), ("Available", "False", kubernetes.MAX_TEXT))
        self.assertEqual(
            result,
            {
                "name": "api-server",
                "namespace": "staging",
                "created": "2027-03-01T08:00:00Z",
                "generation": 4,
                "observed_generation": 4,
                "replicas": {"desired": 3, "ready": 2, "updated": 3, "available": 2},
                "paused": False,
                "images": [{"container": "api", "image": "shop/api:1.4.2"}],
                "conditions": [],
            },
        )

    def test_values_of_the_environment_stay_where_they_are(self):
        self.assertNotIn("hunter2", json.dumps(self.ask((200, DEPLOYMENT))))

    def test_what_the_api_leaves_out_is_nothing(self):
        result = self.ask((200, {"metadata": {"name": "api-server", "namespace": "staging"}, "spec": {"replicas": 0}, "status": {"conditions": None}}))
        self.assertEqual(result["replicas"], {"desired": 0, "ready": 0, "updated": 0, "available": 0})
        self.assertEqual((result["images"], result["conditions"], result["created"], result["observed_generation"]), ([], [], None, 0))

    def test_one_that_is_not_there(self):
        with self.assertRaisesRegex(kubernetes.Failed, "there is no Deployment `api-server` in namespace `staging`"):
            self.ask(status(404, 'deployments.apps "api-server" not found'))


if __name__ == "__main__":
    unittest.main()
