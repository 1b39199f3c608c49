"""k8s_scale_deployment: sets how many replicas a Deployment wants.

The tool contract: the arguments come as JSON on standard input, the result leaves as JSON on standard output, exit code 0 is
success. Only the `scale` subresource is touched: a service account that may do this can change nothing else.
"""

import sys

import kubernetes
from kubernetes import part

MAX_REPLICAS = 1000


def parse(raw):
    """namespace, name and desired_replicas, checked; raises BadInput."""
    arguments = kubernetes.Arguments(raw)
    namespace = arguments.name("namespace", kubernetes.LABEL, "the name of a namespace")
    name = arguments.name("name", kubernetes.SUBDOMAIN, "the name of a Deployment")
    desired = arguments.number("desired_replicas", 0, MAX_REPLICAS)
    arguments.end()
    return namespace, name, desired


def answer(api, namespace, name, desired):
    path = ["apis", "apps", "v1", "namespaces", namespace, "deployments", name, "scale"]
    what = f"Deployment `{name}` in namespace `{namespace}`"
    scale = api.json("GET", path, what)
    before, version = replicas(scale), part(scale, "metadata").get("resourceVersion")
    if not isinstance(version, str) or not version:
        # Without one, the write would win over whatever somebody else has written meanwhile.
        raise kubernetes.Failed("the API server named no version of the Deployment, so it cannot be changed safely")
    after = before
    if desired != before:
        # With the version that was read, the API server refuses (409) if anybody changed the Deployment since.
        metadata = {"name": name, "namespace": namespace, "resourceVersion": version}
        body = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": {"replicas": desired}}
        after = replicas(api.json("PUT", path, what, body=body))
    return {"name": name, "namespace": namespace, "previous_replicas": before, "replicas": after, "changed": after != before}


def replicas(scale):
    """The wanted count of a Scale object, which leaves out a 0."""
    count = part(scale, "spec").get("replicas", 0)
    if not isinstance(count, int):
        raise kubernetes.Failed("the API server's answer has no replica count")
    return count


if __name__ == "__main__":
    sys.exit(kubernetes.run(parse, answer))
