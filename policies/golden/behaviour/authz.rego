# Every way a decision can come out, for the golden cases beside this folder. `input.case` chooses.
package agent.authz

default allow := false

allow if input.allow == true

allow if input.allow == "yes"

# A builtin that fails on some inputs, in a rule that allows.
allow if {
	input.case == "fallible allow"
	to_number(input.text) > 3
}

deny := input.deny

approval := input.approval

obligations := input.obligations

visible := input.visible
