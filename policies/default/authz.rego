# Who may call which tool, with what. Mayfly asks this package about every call; nothing runs without its yes.
#
#   allow        true, and nothing else, allows. Without it the answer is no.
#   deny         anything in it is a no, whatever allow says. Its strings are shown to the agent as reasons.
#   approval     a human has to agree first.
#   obligations  what the call has to keep to. They can only make it tighter.
#   visible      the tools this agent sees at all.
#
# What it is asked is `input`: agent_id, user, actors, task_id, tool, version, tier, action, resource, arguments, credentials (the
# sources of those that the tool's calls are given), environment, time, hour, weekday, and what a tool's `policy_input` lifts to the
# top. See one with its answer:
#
#   mayfly policy eval --policy policies/default --input policies/default/example.json
#
# You will rarely edit this file. Grants are data: edit data.json. After either, run:
#
#   mayfly policy check && opa test policies/default
#
# A running gateway takes up what you saved with the next call, and keeps the old policy when the new one is broken.
package agent.authz

default allow := false

# --- What an agent was granted ---------------------------------------------------------------------------------------------

# data.grants[agent][tool], looked up by both names: as fast with ten thousand grants as with ten. An empty object grants the
# tool as it is.
grant := data.grants[input.agent_id][input.tool]

allow if {
	is_object(grant)
	not outside_grant
}

# A grant may list what an argument can be: "arguments": {"host": ["example.com"]}. An argument that is listed and not given
# is outside too, which is why this collects those that fit, and asks for the others: `not input.arguments[name] in accepted`
# would be undefined, and let through a call that leaves the argument out.
fitting contains name if {
	some name, accepted in grant.arguments
	input.arguments[name] in accepted
}

outside_grant if {
	some name, _ in grant.arguments
	not name in fitting
}

deny contains "this agent may call this tool, but not with these arguments" if outside_grant

# A probe reaches into networks, so a grant for it has to say where to. The tool's own `network` list is the outer wall: what is
# not in there cannot be reached whatever is granted here.
deny contains "the grant for http_probe has to list the hosts it is for" if {
	input.tool == "http_probe"
	is_object(grant)
	not grant.arguments.host
}

# So does a grant for a tool that works in a namespace, or it would be for every one that the tool's service account reaches:
# "arguments": {"namespace": ["staging"]}.
namespaced_tools := {"k8s_get_deployment", "k8s_pod_logs", "k8s_scale_deployment"}

deny contains "the grant for this tool has to list the namespaces it is for" if {
	input.tool in namespaced_tools
	is_object(grant)
	not grant.arguments.namespace
}

# To list a namespace of production is enough to look at it. To scale there, the grant has to say so: "production": true.
granted_production if grant.production == true

deny contains "this agent may not scale anything in production" if {
	input.action == "scale"
	in_production
	not granted_production
}

# --- What nobody is granted ------------------------------------------------------------------------------------------------

# Tools that read Kubernetes say what they read as their resource.
deny contains "Kubernetes Secrets are never read through tools" if input.resource in {"secret", "secrets"}

# And nobody passes one along: as a document, in a List, or in an array. A seat belt for honest mistakes: it does not find a
# Secret that someone wraps up on purpose.
secret_kinds := {"Secret", "SecretList"}

deny contains "Kubernetes Secrets are never passed to tools" if input.arguments.document.kind in secret_kinds

deny contains "Kubernetes Secrets are never passed to tools" if {
	some item in input.arguments.document.items
	item.kind in secret_kinds
}

deny contains "Kubernetes Secrets are never passed to tools" if {
	some item in input.arguments.document
	item.kind in secret_kinds
}

# --- What needs a human ----------------------------------------------------------------------------------------------------

# Where a grant says so: "approval": true.
approval if grant.approval == true

# And whatever changes something in production, whoever asks.
approval if {
	input.action in {"create", "update", "patch", "scale", "delete", "execute"}
	in_production
}

# Anywhere, scaling to more replicas than data.kubernetes.approval_above_replicas. Without that number, all scaling: it is the
# few replicas that are looked for, so that what cannot be compared is never few.
few_replicas if {
	is_number(input.desired_replicas)
	is_number(data.kubernetes.approval_above_replicas)
	input.desired_replicas <= data.kubernetes.approval_above_replicas
}

approval if {
	input.action == "scale"
	not few_replicas
}

# --- What is production ----------------------------------------------------------------------------------------------------

# A gateway whose configuration says so.
in_production if input.environment == "production"

# And, of any cluster, the namespaces in data.kubernetes.production_namespaces; without that list, all of them.
in_production if input.namespace in data.kubernetes.production_namespaces

has_production_namespaces if is_array(data.kubernetes.production_namespaces)

in_production if {
	is_string(input.namespace)
	not has_production_namespaces
}

# --- What a call has to keep to --------------------------------------------------------------------------------------------

# Straight from the grant: "obligations": {"timeout": "5s", "output_limit": "64Ki", "row_cap": 100, "egress":
# ["example.com:443"], "credentials": ["github"], "isolation": "container"}. One that Mayfly does not know, or cannot enforce for the tool, is a no.
obligations := grant.obligations

# --- What an agent sees ----------------------------------------------------------------------------------------------------

# Only what it was granted. Everything else looks as if it did not exist.
visible contains tool if {
	some tool, _ in data.grants[input.agent_id]
}

# A note for whoever extends this file. Builtins fail on types they do not take: `startswith(5, "a")` is an error, and an error
# in any rule that is asked is a no for the call. Compare and look up where you can; `mayfly policy check` tells what it finds.
