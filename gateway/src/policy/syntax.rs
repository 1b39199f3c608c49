//! Reads Rego without running it: which dialect a file is in, which rules it has, and what they call.

use std::collections::{BTreeMap, BTreeSet};

use regorus::Engine;
use serde_json::Value;

use super::input::RESERVED_NAMES;
use super::load::{Problem, Source};

/// One rule as it is written.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) file: String,
    pub(super) package: String,
    /// The first part of its head: `deny` of `deny[reason]`.
    pub(super) name: String,
    pub(super) line: u32,
    /// Where its text begins and ends in the file, in bytes.
    pub(super) span: (usize, usize),
    pub(super) is_default: bool,
    pub(super) is_function: bool,
    /// What it calls, with the line and the number of arguments. Arithmetic is called `arithmetic`.
    pub(super) calls: Vec<(String, u32, usize)>,
    /// Every name that occurs in it.
    pub(super) names: BTreeSet<String>,
    /// Parts of the input that stand under a `not` in such a way that the engines differ when they are missing.
    pub(super) shaky: Vec<(String, u32)>,
}

/// All rules of a policy.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) all: Vec<Rule>,
    /// Per file, what an import's last part stands for.
    pub(super) imports: BTreeMap<(String, String), String>,
}

/// Parses every file. Rego v1 is tried first; a file in the older dialect is taken too, where nothing in it can be misread.
pub(super) fn parse(sources: &[Source]) -> Result<(Engine, Rules), Vec<Problem>> {
    let mut engine = Engine::new();
    engine.set_strict_builtin_errors(true);
    let mut problems = Vec::new();
    for Source { file, text } in sources {
        engine.set_rego_v0(false);
        let Err(newer) = engine.add_policy(file.clone(), text.clone()) else { continue };
        let newer = located(&newer, file);
        let mut older = Engine::new();
        older.set_rego_v0(true);
        match older.add_policy(file.clone(), text.clone()) {
            // The parser that came further knows better what is wrong.
            Err(error) => {
                let error = located(&error, file);
                problems.push(if error.line > newer.line { error } else { newer });
            }
            Ok(_) if read(&older).is_ok_and(|rules| rules.all.iter().any(Rule::may_be_misread)) => problems.push(newer),
            Ok(_) => {
                engine.set_rego_v0(true);
                problems.extend(engine.add_policy(file.clone(), text.clone()).err().map(|error| located(&error, file)));
            }
        }
    }
    engine.set_rego_v0(false);
    match read(&engine) {
        Ok(rules) if problems.is_empty() => Ok((engine, rules)),
        // Files that were read have their problems too: all are told at once.
        Ok(rules) => Err([problems, rules.refused()].concat()),
        Err(problem) => Err([problems, vec![problem]].concat()),
    }
}

/// The engine's message, taken apart: it begins with `--> file:line:column` and ends with `error: what`.
pub(super) fn located(error: &impl std::fmt::Display, file: &str) -> Problem {
    let text = error.to_string();
    let message = text.rsplit_once("error: ").map_or(text.as_str(), |(_, message)| message).trim().to_owned();
    let place = text.lines().find_map(|line| line.strip_prefix("--> ")).and_then(|place| {
        let mut parts = place.rsplitn(3, ':');
        let (_column, line, file) = (parts.next()?, parts.next()?, parts.next()?);
        Some((file.to_owned(), line.parse().ok()?))
    });
    match place {
        Some((file, line)) => Problem { file: Some(file), line: Some(line), message },
        None => Problem::of(file, message),
    }
}

/// Reads the rules out of the engine's syntax tree.
fn read(engine: &Engine) -> Result<Rules, Problem> {
    let tree = engine.get_ast_as_json().map_err(|error| Problem::general(error.to_string()))?;
    let tree: Value = serde_json::from_str(&tree)
        .map_err(|_| Problem::general("an expression is nested too deeply to be checked; split it into rules"))?;
    let mut rules = Rules::default();
    for module in tree.as_array().into_iter().flatten() {
        let file = module.pointer("/source/file").and_then(Value::as_str).unwrap_or_default();
        let text = module.pointer("/source/contents").and_then(Value::as_str).unwrap_or_default();
        let package = module.pointer("/ast/package/refr").and_then(path).unwrap_or_default();
        for import in module.pointer("/ast/imports").and_then(Value::as_array).into_iter().flatten() {
            let target = import.get("refr").and_then(path).unwrap_or_default();
            let span = |end: &str| import.pointer(end).and_then(Value::as_u64).and_then(|end| usize::try_from(end).ok());
            let renamed = span("/as/start").zip(span("/as/end")).and_then(|(start, end)| text.get(start..end));
            let alias = renamed.or_else(|| target.rsplit('.').next()).unwrap_or_default().to_owned();
            rules.imports.insert((file.to_owned(), alias), target);
        }
        for rule in module.pointer("/ast/rules").and_then(Value::as_array).into_iter().flatten() {
            rules
                .all
                .extend(rule.as_object().into_iter().flatten().filter_map(|(kind, rule)| Rule::read(file, &package, kind, rule)));
        }
    }
    Ok(rules)
}

impl Rule {
    fn read(file: &str, package: &str, kind: &str, rule: &Value) -> Option<Self> {
        let (head_kind, head) = match rule.get("head").and_then(Value::as_object) {
            Some(head) => head.iter().next()?,
            None => (&String::new(), rule),
        };
        let offset = |end: &str| usize::try_from(rule.pointer(end)?.as_u64()?).ok();
        let mut found = Self {
            file: file.to_owned(),
            package: package.to_owned(),
            name: root(head.get("refr")?)?,
            line: u32::try_from(rule.pointer("/span/line")?.as_u64()?).ok()?,
            span: (offset("/span/start")?, offset("/span/end")?),
            is_default: kind == "Default",
            is_function: head_kind == "Func" || head.get("args").and_then(Value::as_array).is_some_and(|args| !args.is_empty()),
            calls: Vec::new(),
            names: BTreeSet::new(),
            shaky: Vec::new(),
        };
        found.gather(rule);
        Some(found)
    }

    fn gather(&mut self, tree: &Value) {
        match tree {
            Value::Array(items) => items.iter().for_each(|item| self.gather(item)),
            Value::Object(members) => {
                for (kind, inner) in members {
                    self.note(kind, inner);
                    self.gather(inner);
                }
            }
            _ => {}
        }
    }

    fn note(&mut self, kind: &str, node: &Value) {
        let line =
            node.pointer("/span/line").and_then(Value::as_u64).and_then(|line| u32::try_from(line).ok()).unwrap_or(self.line);
        match kind {
            "Call" => {
                let arguments = node.get("params").and_then(Value::as_array).map_or(0, Vec::len);
                self.calls.push((node.get("fcn").and_then(path).unwrap_or_default(), line, arguments));
            }
            "NotExpr" => may_be_missing(node, false, line, &mut self.shaky),
            "ArithExpr" => self.calls.push(("arithmetic".to_owned(), line, 2)),
            "Var" => self.names.extend(node.get("value").and_then(Value::as_str).map(str::to_owned)),
            "RefDot" | "RefBrack" => self.names.extend(path_of(kind, node)),
            _ => {}
        }
    }
}

impl Rule {
    /// Whether the older dialect took a keyword of the newer one for a name: `allow if { ... }` would be an `allow` without
    /// conditions and a rule called `if`.
    fn may_be_misread(&self) -> bool {
        const KEYWORDS: [&str; 4] = ["if", "in", "contains", "every"];
        KEYWORDS.iter().any(|keyword| {
            let is_builtin = *keyword == "contains" && self.name != "contains";
            !is_builtin && (self.name == *keyword || self.names.contains(*keyword))
        })
    }

    /// Whether this is the rule `name` of `package`, however it is written.
    pub(super) fn is(&self, package: &str, name: &str) -> bool {
        self.package == package && self.name == name
    }
}

impl Rules {
    /// Whether any file belongs to this package and has a rule in it.
    pub(super) fn has_package(&self, package: &str) -> bool {
        self.all.iter().any(|rule| rule.package == package)
    }

    /// The packages there are.
    pub(super) fn packages(&self) -> BTreeSet<&str> {
        self.all.iter().map(|rule| rule.package.as_str()).collect()
    }
}

/// The dotted form of a reference made of constants.
fn path(expression: &Value) -> Option<String> {
    let (kind, node) = expression.as_object()?.iter().next()?;
    path_of(kind, node)
}

fn path_of(kind: &str, node: &Value) -> Option<String> {
    match kind {
        "Var" => Some(node.get("value")?.as_str()?.to_owned()),
        "RefDot" => Some(format!("{}.{}", path(node.get("refr")?)?, node.pointer("/field/1")?.as_str()?)),
        "RefBrack" => Some(format!("{}.{}", path(node.get("refr")?)?, node.pointer("/index/String/value")?.as_str()?)),
        _ => None,
    }
}

/// Collects references into the input that are operands of something under a `not`. Plain `not input.x` and `not input.x == y` mean
/// the same to everyone; what is always in the input cannot be missing.
fn may_be_missing(tree: &Value, operand: bool, line: u32, found: &mut Vec<(String, u32)>) {
    match tree {
        Value::Array(items) => items.iter().for_each(|item| may_be_missing(item, operand, line, found)),
        Value::Object(members) => {
            for (kind, node) in members {
                let is_equality = kind == "BoolExpr" && node.get("op").is_some_and(|op| op == "Eq");
                let operates =
                    ["Call", "Membership", "ArithExpr", "BinExpr", "BoolExpr"].contains(&kind.as_str()) && !is_equality;
                let reference = (kind.starts_with("Ref")).then(|| root(node.get("refr")?)).flatten();
                match reference.as_deref() {
                    Some("input") if operand => {
                        let name = path_of(kind, node).unwrap_or_else(|| "a part of the input".to_owned());
                        let always = name.strip_prefix("input.").is_some_and(|name| RESERVED_NAMES.contains(&name));
                        found.extend((!always).then_some((name, line)));
                    }
                    _ => may_be_missing(node, operand || operates, line, found),
                }
            }
        }
        _ => {}
    }
}

/// The first name of a reference.
fn root(expression: &Value) -> Option<String> {
    let (kind, node) = expression.as_object()?.iter().next()?;
    match kind.as_str() {
        "Var" => Some(node.get("value")?.as_str()?.to_owned()),
        _ => root(node.get("refr")?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Rules, Vec<Problem>> {
        parse(&[Source { file: "a.rego".to_owned(), text: text.to_owned() }]).map(|(_, rules)| rules)
    }

    #[test]
    fn both_dialects_are_read() {
        for text in [
            "package a\nallow if input.x\ndeny contains \"no\" if input.y",
            "package a\nimport rego.v1\nallow if input.x",
            "package a\nimport future.keywords.if\nimport future.keywords.in\nallow if { input.x in {1} }",
            "package a\nallow { input.x }\ndeny[reason] { reason := \"no\" }",
            "package a\nimport future.keywords\nallow if { contains(input.x, \"a\") }\ndeny { input.y }",
        ] {
            assert!(parsed(text).is_ok(), "{text}: {:?}", parsed(text));
        }
    }

    #[test]
    fn a_keyword_is_never_taken_for_a_name() {
        for text in [
            "package a\nallow if { input.x }\ndeny { input.y }",
            "package a\ndeny { input.y }\nallow if input.x",
            "package a\ndeny { input.y }\ndeny contains \"no\" if { input.x }",
            "package a\ndeny { every x in input.y { x } }",
        ] {
            let problems = parsed(text).unwrap_err();
            assert!(problems[0].line.is_some(), "{problems:?}");
        }
    }

    #[test]
    fn a_syntax_error_has_its_line() {
        let problems = parsed("package a\n\nallow if {\n  input.x ==\n}\n").unwrap_err();
        assert_eq!((problems[0].file.as_deref(), problems[0].line), (Some("a.rego"), Some(5)), "{problems:?}");
        let problems = parsed("package a\nallow {\n  input.x\n}\ndeny {\n  input.y ==\n}\n").unwrap_err();
        assert_eq!(problems[0].line, Some(5), "{problems:?}");
    }
}
