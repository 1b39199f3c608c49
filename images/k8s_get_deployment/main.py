"""k8s_get_deployment: one Deployment, in short.

The tool contract: the arguments come as JSON on standard input, the result leaves as JSON on standard output, exit code 0 is
success. What it may read is up to the service account that the token of the call belongs to.
"""

import sys

import kubernetes
from kubernetes import part, text

MAX_LIST = 64


def parse(raw):
    """namespace and name, checked; raises BadInput."""
    arguments = kubernetes.Arguments(raw)
    namespace = arguments.name("namespace", kubernetes.LABEL, "the name of a namespace")
    name = arguments.name("name", kubernetes.SUBDOMAIN, "the name of a Deployment")
    arguments.end()
    return namespace, name


def answer(api, namespace, name):
    path = ["apis", "apps", "v1", "namespaces", namespace, "deployments", name]
    return summary(api.json("GET", path, f"Deployment `{name}` in namespace `{namespace}`"))


def summary(deployment):
    """What an agent asks about. The environment and the volumes of the containers are left out: values in them may be secret."""
    metadata, spec, status = part(deployment, "metadata"), part(deployment, "spec"), part(deployment, "status")
    containers = part(spec, "template", "spec").get("containers") or []
    return {
        "name": metadata.get("name"),
        "namespace": metadata.get("namespace"),
        "created": metadata.get("creationTimestamp"),
        "generation": metadata.get("generation", 0),
        # Behind `generation`, the numbers below are still about the time before the latest change.
        "observed_generation": status.get("observedGeneration", 0),
        # The API leaves out a number that is 0, but not `spec.replicas`, which it defaults to 1.
        "replicas": {
            "desired": spec.get("replicas", 1),
            "ready": status.get("readyReplicas", 0),
            "updated": status.get("updatedReplicas", 0),
            "available": status.get("availableReplicas", 0),
        },
        "paused": spec.get("paused", False),
        "images": [{"container": text(one.get("name")), "image": text(one.get("image"))} for one in containers[:MAX_LIST]],
        "conditions": [condition(one) for one in (status.get("conditions") or [])[:MAX_LIST]],
    }


def condition(one):
    return {
        "type": text(one.get("type")),
        "status": text(one.get("status")),
        "reason": text(one.get("reason")),
        "message": text(one.get("message")),
        "since": text(one.get("lastTransitionTime")),
    }


if __name__ == "__main__":
    sys.exit(kubernetes.run(parse, answer))
