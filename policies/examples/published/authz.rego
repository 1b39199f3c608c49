package agent.authz

import future.keywords.if
import future.keywords.in

default allow := false

# Allow read operations in the staging namespace
allow if {
    input.action in {"get", "list", "watch"}
    input.namespace == "staging"
    input.agent_id in data.authorized_agents
}

# Allow scaling deployments up to 10 replicas, outside production
allow if {
    input.action == "scale"
    input.resource == "deployment"
    input.desired_replicas <= 10
    input.namespace != "production"
}

# Never allow access to secrets
deny if {
    input.resource == "secret"
}
