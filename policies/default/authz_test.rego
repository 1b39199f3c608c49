# An allowed and a denied case for every rule. Run: opa test policies/default
package agent.authz_test

import data.agent.authz

# Grants of its own, so that editing data.json breaks no test.
grants := {
	"plain": {"json_query": {}, "code_executor": {}, "git_log": null, "http_probe": {}},
	"narrow": {"http_probe": {
		"arguments": {"host": ["example.com"], "port": [443]},
		"obligations": {"timeout": "5s"},
	}},
	"watched": {"code_executor": {"approval": true}},
	"reader": {"k8s_get_deployment": {"arguments": {"namespace": ["staging", "live"]}}, "k8s_pod_logs": {}},
	"scaler": {"k8s_scale_deployment": {"arguments": {"namespace": ["staging", "live"]}}},
	"live-scaler": {"k8s_scale_deployment": {
		"arguments": {"namespace": ["staging", "live"]},
		"production": true,
	}},
}

kubernetes := {"production_namespaces": ["live"], "approval_above_replicas": 10}

call(agent, tool, arguments) := {
	"agent_id": agent,
	"user": null,
	"actors": [],
	"task_id": null,
	"tool": tool,
	"action": "get",
	"resource": "json",
	"arguments": arguments,
	"environment": "development",
}

query(document) := call("plain", "json_query", {"query": ".", "document": document})

probe(arguments) := call("narrow", "http_probe", arguments)

# As Mayfly asks about tools that lift the namespace.
in_namespace(agent, tool, namespace) := object.union(
	call(agent, tool, {"namespace": namespace, "name": "api"}),
	{"resource": "deployment", "namespace": namespace},
)

scaling(agent, namespace, replicas) := object.union(
	in_namespace(agent, "k8s_scale_deployment", namespace),
	{"action": "scale", "desired_replicas": replicas},
)

# allow

test_a_granted_tool_is_allowed if {
	authz.allow with input as query({"kind": "Pod"}) with data.grants as grants
	count(authz.deny) == 0 with input as query({"kind": "Pod"}) with data.grants as grants
}

test_another_tool_is_not if {
	not authz.allow with input as call("narrow", "json_query", {}) with data.grants as grants
}

test_another_agent_is_not if {
	not authz.allow with input as call("stranger", "json_query", {}) with data.grants as grants
}

test_a_grant_is_an_object if {
	not authz.allow with input as call("plain", "git_log", {}) with data.grants as grants
}

test_nothing_is_allowed_without_input if {
	not authz.allow with input as {} with data.grants as grants
}

# outside_grant

test_listed_arguments_are_allowed if {
	asked := probe({"host": "example.com", "port": 443})
	authz.allow with input as asked with data.grants as grants
	count(authz.deny) == 0 with input as asked with data.grants as grants
}

test_others_are_not if {
	every arguments in [
		{"host": "example.org", "port": 443},
		{"host": "Example.com", "port": 443},
		{"host": "example.com", "port": "443"},
		{"host": ["example.com"], "port": 443},
		{"host": null, "port": 443},
		{"host": "example.com"},
		{},
	] {
		asked := probe(arguments)
		not authz.allow with input as asked with data.grants as grants
		count(authz.deny) == 1 with input as asked with data.grants as grants
	}
}

# http_probe without hosts

test_a_probe_needs_hosts if {
	asked := call("plain", "http_probe", {"host": "example.com"})
	authz.deny["the grant for http_probe has to list the hosts it is for"] with input as asked with data.grants as grants
}

test_a_probe_with_hosts_is_not_denied if {
	asked := probe({"host": "example.com", "port": 443})
	count(authz.deny) == 0 with input as asked with data.grants as grants
}

# tools of namespaces

test_a_listed_namespace_is_allowed if {
	every namespace in ["staging", "live"] {
		asked := in_namespace("reader", "k8s_get_deployment", namespace)
		authz.allow with input as asked with data.grants as grants with data.kubernetes as kubernetes
		count(authz.deny) == 0 with input as asked with data.grants as grants with data.kubernetes as kubernetes
		not authz.approval with input as asked with data.grants as grants with data.kubernetes as kubernetes
	}
}

test_another_namespace_is_not if {
	every namespace in ["kube-system", "Staging", "", null] {
		asked := in_namespace("reader", "k8s_get_deployment", namespace)
		not authz.allow with input as asked with data.grants as grants with data.kubernetes as kubernetes
		count(authz.deny) == 1 with input as asked with data.grants as grants with data.kubernetes as kubernetes
	}
}

test_a_grant_without_namespaces_is_denied if {
	asked := in_namespace("reader", "k8s_pod_logs", "staging")
	reason := "the grant for this tool has to list the namespaces it is for"
	authz.deny[reason] with input as asked with data.grants as grants with data.kubernetes as kubernetes
}

# scaling

test_scaling_to_a_few_is_allowed_without_a_human if {
	every replicas in [0, 10] {
		asked := scaling("scaler", "staging", replicas)
		authz.allow with input as asked with data.grants as grants with data.kubernetes as kubernetes
		count(authz.deny) == 0 with input as asked with data.grants as grants with data.kubernetes as kubernetes
		not authz.approval with input as asked with data.grants as grants with data.kubernetes as kubernetes
	}
}

test_scaling_to_many_needs_approval if {
	every replicas in [11, 1000, "5", null, [1]] {
		asked := scaling("scaler", "staging", replicas)
		authz.approval with input as asked with data.grants as grants with data.kubernetes as kubernetes
	}
}

test_scaling_to_who_knows_how_many_needs_approval if {
	asked := object.union(in_namespace("scaler", "k8s_scale_deployment", "staging"), {"action": "scale"})
	authz.approval with input as asked with data.grants as grants with data.kubernetes as kubernetes
}

test_without_a_number_all_scaling_needs_approval if {
	every number in [{}, {"approval_above_replicas": "10"}, {"approval_above_replicas": null}] {
		without := object.union({"production_namespaces": []}, number)
		asked := scaling("scaler", "staging", 1)
		authz.approval with input as asked with data.grants as grants with data.kubernetes as without
	}
}

test_scaling_production_takes_a_grant_that_says_so if {
	asked := scaling("scaler", "live", 1)
	authz.deny == {"this agent may not scale anything in production"} with input as asked
		with data.grants as grants
		with data.kubernetes as kubernetes
}

test_with_one_it_takes_a_human if {
	asked := scaling("live-scaler", "live", 1)
	authz.allow with input as asked with data.grants as grants with data.kubernetes as kubernetes
	count(authz.deny) == 0 with input as asked with data.grants as grants with data.kubernetes as kubernetes
	authz.approval with input as asked with data.grants as grants with data.kubernetes as kubernetes
}

test_a_gateway_of_production_has_no_other_namespaces if {
	asked := object.union(scaling("scaler", "staging", 1), {"environment": "production"})
	count(authz.deny) == 1 with input as asked with data.grants as grants with data.kubernetes as kubernetes
}

test_without_a_list_every_namespace_is_production if {
	every list in [{}, {"production_namespaces": "live"}, {"production_namespaces": null}] {
		without := object.union({"approval_above_replicas": 10}, list)
		asked := scaling("scaler", "staging", 1)
		count(authz.deny) == 1 with input as asked with data.grants as grants with data.kubernetes as without
	}
}

# Secrets

test_reading_secrets_is_denied if {
	every resource in ["secret", "secrets"] {
		asked := object.union(query({}), {"resource": resource})
		authz.deny["Kubernetes Secrets are never read through tools"] with input as asked with data.grants as grants
	}
}

test_reading_others_is_not if {
	asked := object.union(query({}), {"resource": "deployment"})
	count(authz.deny) == 0 with input as asked with data.grants as grants
}

test_passing_a_secret_is_denied if {
	every document in [
		{"kind": "Secret", "data": {}},
		{"kind": "SecretList", "items": []},
		{"kind": "List", "items": [{"kind": "Pod"}, {"kind": "Secret"}]},
		[{"kind": "Pod"}, {"kind": "Secret"}],
	] {
		asked := query(document)
		authz.deny == {"Kubernetes Secrets are never passed to tools"} with input as asked with data.grants as grants
	}
}

test_passing_others_is_not if {
	every document in [{"kind": "Pod"}, {"kind": "List", "items": [{"kind": "Pod"}]}, [{"kind": "Pod"}], [], null, "Secret", 7] {
		asked := query(document)
		count(authz.deny) == 0 with input as asked with data.grants as grants
	}
}

# approval

test_a_watched_grant_needs_approval if {
	authz.approval with input as call("watched", "code_executor", {}) with data.grants as grants
}

test_a_plain_one_does_not if {
	not authz.approval with input as call("plain", "code_executor", {}) with data.grants as grants
}

test_changing_production_needs_approval if {
	asked := object.union(call("plain", "code_executor", {}), {"environment": "production", "action": "execute"})
	authz.approval with input as asked with data.grants as grants
}

test_reading_production_does_not if {
	asked := object.union(query({}), {"environment": "production"})
	not authz.approval with input as asked with data.grants as grants
}

# obligations

test_obligations_come_from_the_grant if {
	asked := probe({"host": "example.com", "port": 443})
	authz.obligations == {"timeout": "5s"} with input as asked with data.grants as grants
}

test_no_obligations_otherwise if {
	not authz.obligations with input as query({}) with data.grants as grants
}

# visible

test_an_agent_sees_what_it_was_granted if {
	authz.visible == {"http_probe"} with input as {"agent_id": "narrow"} with data.grants as grants
}

test_a_stranger_sees_nothing if {
	count(authz.visible) == 0 with input as {"agent_id": "stranger"} with data.grants as grants
}
