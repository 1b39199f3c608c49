//! What there is to say about a policy before it is asked: what refuses it, and what its operator should know.

use std::collections::BTreeSet;

use super::builtins::{cannot_fail, refusal};
use super::load::Problem;
use super::syntax::{Rule, Rules};

impl Rules {
    /// Calls of what is refused.
    pub(super) fn refused(&self) -> Vec<Problem> {
        let calls = self.all.iter().flat_map(|rule| rule.calls.iter().map(move |call| (rule, call)));
        let refused = calls.filter_map(|(rule, (name, line, _))| {
            refusal(name).map(|why| Problem::at(&rule.file, *line, format!("`{name}` is refused: {why}")))
        });
        refused.collect()
    }

    /// Calls of functions that neither the policy nor regorus has, or with a wrong number of arguments. Regorus itself would find out only when it comes
    /// to the call.
    pub(super) fn unknown(&self) -> Vec<Problem> {
        let functions: BTreeSet<String> =
            self.all.iter().filter(|rule| rule.is_function).map(|rule| format!("{}.{}", rule.package, rule.name)).collect();
        let mut problems = Vec::new();
        for rule in &self.all {
            for (name, line, arguments) in &rule.calls {
                if name == "arithmetic"
                    || name == "print"
                    || refusal(name).is_some()
                    || functions.contains(&self.resolved(rule, name))
                {
                    continue;
                }
                let wrong = match regorus::unstable::BUILTINS.get(name.as_str()) {
                    None => format!("there is no function `{name}` here"),
                    // One more than it takes: the last one is its result, as in `lower(text, small)`.
                    Some((_, takes)) if *arguments == usize::from(*takes) || *arguments == usize::from(*takes) + 1 => continue,
                    Some((_, takes)) => format!("`{name}` takes {takes} arguments, not {arguments}"),
                };
                problems.push(Problem::at(&rule.file, *line, wrong));
            }
        }
        problems
    }

    /// `not f(input.x)` and its like, with an `input.x` that a call need not have: true here when it is missing, undefined in OPA.
    pub(super) fn shaky(&self) -> Vec<Problem> {
        let found = self.all.iter().flat_map(|rule| rule.shaky.iter().map(move |(name, line)| (rule, name, line)));
        let told = found.map(|(rule, name, line)| {
            let message = format!(
                "warning: when {name} is missing, this `not` is true here and undefined in OPA; say `{name} = _` before it, or make the argument required"
            );
            Problem::at(&rule.file, *line, message)
        });
        told.collect()
    }

    /// `deny` rules of `package` that rest, by themselves or through rules of the same package, on something that can fail.
    pub(super) fn fragile_denials(&self, package: &str) -> Vec<(&Rule, String)> {
        let denials = self.all.iter().filter(|rule| rule.is(package, "deny") && !rule.is_default);
        denials.flat_map(|rule| self.fallible(package, rule).into_iter().map(move |name| (rule, name))).collect()
    }

    fn fallible(&self, package: &str, rule: &Rule) -> BTreeSet<String> {
        let (mut found, mut seen, mut ahead) = (BTreeSet::new(), BTreeSet::new(), vec![rule]);
        while let Some(rule) = ahead.pop() {
            if !seen.insert((&rule.file, rule.span)) {
                continue;
            }
            for (name, _, _) in &rule.calls {
                if !cannot_fail(name) && (name == "arithmetic" || regorus::unstable::BUILTINS.contains_key(name.as_str())) {
                    found.insert(name.clone());
                }
            }
            let rests_on = |other: &&Rule| {
                other.package == package
                    && other.name != rule.name
                    && (rule.names.contains(&other.name) || rule.names.contains(&format!("data.{package}.{}", other.name)))
            };
            ahead.extend(self.all.iter().filter(rests_on));
        }
        found
    }

    /// The full path of a function as `rule` calls it.
    fn resolved(&self, rule: &Rule, name: &str) -> String {
        let (first, rest) = name.split_once('.').unwrap_or((name, ""));
        match self.imports.get(&(rule.file.clone(), first.to_owned())) {
            _ if first == "data" => rest.to_owned(),
            Some(target) => format!("{}.{rest}", target.strip_prefix("data.").unwrap_or(target)).trim_end_matches('.').to_owned(),
            None => format!("{}.{name}", rule.package),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::Source;
    use super::super::syntax::parse;
    use super::*;

    fn parsed(text: &str) -> Result<Rules, Vec<Problem>> {
        parse(&[Source { file: "a.rego".to_owned(), text: text.to_owned() }]).map(|(_, rules)| rules)
    }

    #[test]
    fn what_must_not_be_called_is_refused_however_it_is_written() {
        for call in [
            "http.send({})",
            "http[\"send\"]({})",
            "opa.runtime()",
            "net.lookup_ip_addr(\"x\")",
            "rand.intn(\"x\", 2)",
            "uuid.rfc4122(\"x\")",
            "numbers.range(1, input.n)",
        ] {
            let rules = parsed(&format!("package a\n\nallow if {call}")).unwrap();
            let problems = rules.refused();
            assert_eq!(problems.first().and_then(|problem| problem.line), Some(3), "{call}: {problems:?}");
        }
        assert!(parsed("package a\nallow if input.http.send == 1").unwrap().refused().is_empty());
    }

    #[test]
    fn unknown_functions_are_found_before_they_are_called() {
        let unknown = |text: &str| parsed(text).unwrap().unknown();
        assert_eq!(unknown("package a\nallow if { input.x; nowhere.to(1) }")[0].line, Some(2));
        assert_eq!(unknown("package a\nallow if lower(\"a\", \"b\", \"c\")").len(), 1);
        assert!(
            unknown("package a\nimport data.lib as l\nf(x) := x\nallow if { f(1); data.a.f(1); lower(\"A\") == \"a\" }")
                .is_empty()
        );
        let lib = Source { file: "lib.rego".to_owned(), text: "package lib\ng(x) := x".to_owned() };
        let user = Source {
            file: "a.rego".to_owned(),
            text: "package a\nimport data.lib as l\nimport data.lib.g\nallow if { l.g(1); g(1) }".to_owned(),
        };
        let (_, rules) = parse(&[lib, user]).unwrap();
        assert!(rules.unknown().is_empty(), "{:?}", rules.unknown());
    }

    #[test]
    fn a_negation_that_the_engines_read_differently_is_named() {
        let shaky = |body: &str| parsed(&format!("package a\nallow if {{ {body} }}")).unwrap().shaky().len();
        for body in [
            "not input.ns in {1}",
            "not startswith(input.arguments.x, \"a\")",
            "not input.x != 1",
            "some n in [1]; not input.y[n] in [2]",
        ] {
            assert_eq!(shaky(body), 1, "{body}");
        }
        for body in [
            "not input.ns",
            "not input.ns == 1",
            "not input.agent_id in data.agents",
            "input.ns in {1}",
            "some n in [1]; not n in [2]",
        ] {
            assert_eq!(shaky(body), 0, "{body}");
        }
    }

    #[test]
    fn a_denial_that_can_fail_is_named() {
        let rules = parsed(
            "package a\nsmall := lower(input.x)\ndeny if small == \"a\"\ndeny if input.y == 1\ndeny if is_string(input.z)",
        )
        .unwrap();
        let found = rules.fragile_denials("a");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0.line, found[0].1.as_str()), (3, "lower"));
    }
}
