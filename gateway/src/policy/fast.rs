//! Bytecode for policies in which nothing can fail.
//!
//! The machine takes any error inside a rule body (a builtin on a wrong type, arithmetic on text, rules that contradict each other) for
//! "undefined". OPA does so too, but here an error in `deny` must never become an allow. So a program is taken only if every
//! instruction in it is one that cannot fail and means the same to the interpreter, and no two bodies of a rule can give
//! different values. What is not known to be harmless is left to the interpreter.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use regorus::languages::rego::compiler::Compiler;
use regorus::rvm::instructions::LoopMode;
use regorus::rvm::program::{Program, RuleInfo, RuleType};
use regorus::rvm::{Instruction, RegoVM};
use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{CompiledPolicy, Value};

use super::builtins;
use super::syntax::{self, Rules};

/// Instructions of the machine between two looks at the clock.
const STEPS: NonZeroU32 = match NonZeroU32::new(256) {
    Some(steps) => steps,
    None => NonZeroU32::MIN,
};

/// A program, its data, and which of the rules asked for it has.
pub(super) struct Fast {
    program: Arc<Program>,
    policy: CompiledPolicy,
    data: Value,
    entries: Vec<Option<usize>>,
    time_limit: Duration,
}

impl Fast {
    /// The program that answers the rules `asked` of `package`, or why there is none.
    pub(super) fn compile(
        policy: &CompiledPolicy,
        package: &str,
        asked: &[&str],
        rules: &Rules,
        data: Value,
        time_limit: Duration,
    ) -> Result<Self, String> {
        let mut paths = Vec::new();
        let mut entries = vec![None; asked.len()];
        for (entry, name) in entries.iter_mut().zip(asked) {
            let path = format!("data.{package}.{name}");
            let below = |other: &String| other.strip_prefix(&path).is_some_and(|rest| rest.starts_with(['.', '[']));
            if policy.get_rules().keys().any(below) || rules.all.iter().any(|rule| rule.package.starts_with(&path[5..])) {
                return Err(format!("`{name}` is made of parts (`{name}.x`)"));
            }
            if policy.get_rules().contains_key(&path) {
                *entry = Some(paths.len());
                paths.push(path);
            } else if rules.all.iter().any(|rule| rule.is(package, name)) {
                return Err(format!("`{name}` has a default and nothing else"));
            }
        }
        let names: Vec<&str> = paths.iter().map(String::as_str).collect();
        let program = Compiler::compile_from_policy(policy, &names)
            .map_err(|error| syntax::located(&error.to_string(), "policy").to_string())?;
        check(&program)?;
        Ok(Self { program, policy: policy.clone(), data, entries, time_limit })
    }

    /// A machine ready to be asked, any number of times.
    pub(super) fn machine(&self) -> Result<Machine, String> {
        let mut machine = RegoVM::new_with_policy(self.policy.clone());
        machine.load_program(Arc::clone(&self.program));
        machine.set_data(self.data.clone()).map_err(|error| error.to_string())?;
        machine.set_max_instructions(usize::MAX);
        machine.set_execution_timer_config(Some(ExecutionTimerConfig { limit: self.time_limit, check_interval: STEPS }));
        Ok(Machine { machine, entries: self.entries.clone() })
    }
}

/// One machine: used by one question at a time.
pub(super) struct Machine {
    machine: RegoVM,
    entries: Vec<Option<usize>>,
}

impl Machine {
    /// The values of the rules asked for, in their order; undefined for one that does not exist.
    pub(super) fn ask(&mut self, input: Value) -> Result<Vec<Value>, impl std::fmt::Display + use<>> {
        self.machine.set_input(input);
        let machine = &mut self.machine;
        let ask = |entry: &Option<usize>| entry.map_or(Ok(Value::Undefined), |entry| machine.execute_entry_point_by_index(entry));
        self.entries.iter().map(ask).collect::<Result<Vec<Value>, _>>()
    }
}

/// Whether nothing in the program can fail; otherwise what can.
fn check(program: &Program) -> Result<(), String> {
    for (at, instruction) in program.instructions.iter().enumerate() {
        if !is_harmless(program, instruction) {
            return Err(format!("{} can fail, and must not go unnoticed", place(program, at, instruction)));
        }
    }
    for rule in &program.rule_infos {
        if !is_single_valued(program, rule) {
            return Err(format!("the values of `{}` may contradict each other", rule.name));
        }
    }
    Ok(())
}

fn is_harmless(program: &Program, instruction: &Instruction) -> bool {
    use Instruction as I;
    match instruction {
        I::Load { .. }
        | I::LoadTrue { .. }
        | I::LoadFalse { .. }
        | I::LoadNull { .. }
        | I::LoadBool { .. }
        | I::LoadData { .. }
        | I::LoadInput { .. }
        | I::Move { .. }
        | I::Eq { .. }
        | I::Ne { .. }
        | I::Lt { .. }
        | I::Le { .. }
        | I::Gt { .. }
        | I::Ge { .. }
        | I::Not { .. }
        | I::Return { .. }
        | I::Index { .. }
        | I::IndexLiteral { .. }
        | I::ChainedIndex { .. }
        | I::SetAdd { .. }
        | I::Contains { .. }
        | I::Guard { .. }
        | I::LoopNext { .. }
        | I::CallRule { .. }
        | I::RuleInit { .. }
        | I::RuleReturn {} => true,
        I::LoopStart { params_index } => program
            .instruction_data
            .get_loop_params(*params_index)
            .is_some_and(|params| matches!(params.mode, LoopMode::Any | LoopMode::ForEach)),
        I::BuiltinCall { .. } => builtin(program, instruction).is_some_and(|name| name != "print" && builtins::cannot_fail(name)),
        _ => false,
    }
}

fn builtin<'a>(program: &'a Program, instruction: &Instruction) -> Option<&'a str> {
    let Instruction::BuiltinCall { params_index } = instruction else { return None };
    let call = program.instruction_data.get_builtin_call_params(*params_index)?;
    program.get_builtin_info(call.builtin_index).map(|info| info.name.as_str())
}

/// Whether every body of the rule gives the same constant, or there is one body that gives one value.
fn is_single_valued(program: &Program, rule: &RuleInfo) -> bool {
    if rule.function_info.is_some() || rule.destructuring_blocks.iter().any(Option::is_some) {
        return false;
    }
    match rule.rule_type {
        RuleType::PartialSet => !rule.else_bodies.iter().flatten().any(|is_else| *is_else),
        RuleType::PartialObject => false,
        RuleType::Complete => {
            let bodies: Vec<&[Instruction]> = rule.definitions.iter().flatten().map(|start| body(program, *start)).collect();
            let constants: Vec<Option<Value>> = bodies.iter().map(|body| constant(program, body, rule.result_reg)).collect();
            let agree = constants.windows(2).all(|pair| matches!(pair, [one, other] if one == other));
            let only = bodies.len() <= 1
                && !bodies.iter().flat_map(|body| body.iter()).any(|i| matches!(i, Instruction::LoopStart { .. }));
            only || (agree && constants.iter().all(Option::is_some))
        }
    }
}

fn body(program: &Program, start: u32) -> &[Instruction] {
    let rest = usize::try_from(start).ok().and_then(|start| program.instructions.get(start..)).unwrap_or_default();
    let length = rest.iter().position(|instruction| matches!(instruction, Instruction::RuleReturn {}));
    length.and_then(|length| rest.get(..length)).unwrap_or_default()
}

/// The constant that a body puts into the result register, if that is the only thing it ever puts there.
fn constant(program: &Program, body: &[Instruction], result: u8) -> Option<Value> {
    let mut writes = body.windows(2).filter_map(|pair| match pair {
        [before, Instruction::Move { dest, src }] if *dest == result => Some(loaded(program, before, *src)),
        _ => None,
    });
    let only = writes.next()??;
    let elsewhere = body
        .iter()
        .any(|instruction| !matches!(instruction, Instruction::Move { .. }) && writes_to(program, instruction, result));
    (writes.next().is_none() && !elsewhere).then_some(only)
}

/// Whether an instruction puts something into a register; for one whose destination is not known here, yes.
fn writes_to(program: &Program, instruction: &Instruction, register: u8) -> bool {
    use Instruction as I;
    match instruction {
        I::Load { dest, .. }
        | I::LoadTrue { dest }
        | I::LoadFalse { dest }
        | I::LoadNull { dest }
        | I::LoadBool { dest, .. }
        | I::LoadData { dest }
        | I::LoadInput { dest }
        | I::Eq { dest, .. }
        | I::Ne { dest, .. }
        | I::Lt { dest, .. }
        | I::Le { dest, .. }
        | I::Gt { dest, .. }
        | I::Ge { dest, .. }
        | I::Not { dest, .. }
        | I::Index { dest, .. }
        | I::IndexLiteral { dest, .. }
        | I::Contains { dest, .. }
        | I::CallRule { dest, .. } => *dest == register,
        I::ChainedIndex { params_index } => {
            program.instruction_data.get_chained_index_params(*params_index).is_none_or(|params| params.dest == register)
        }
        I::BuiltinCall { params_index } => {
            program.instruction_data.get_builtin_call_params(*params_index).is_none_or(|params| params.dest == register)
        }
        I::LoopStart { params_index } => program
            .instruction_data
            .get_loop_params(*params_index)
            .is_none_or(|params| [params.key_reg, params.value_reg, params.result_reg].contains(&register)),
        I::Guard { .. } | I::LoopNext { .. } | I::RuleInit { .. } => false,
        _ => true,
    }
}

fn loaded(program: &Program, instruction: &Instruction, register: u8) -> Option<Value> {
    match instruction {
        Instruction::LoadTrue { dest } if *dest == register => Some(Value::Bool(true)),
        Instruction::LoadFalse { dest } if *dest == register => Some(Value::Bool(false)),
        Instruction::LoadBool { dest, value } if *dest == register => Some(Value::Bool(*value)),
        Instruction::Load { dest, literal_idx } if *dest == register => program.literals.get(usize::from(*literal_idx)).cloned(),
        _ => None,
    }
}

fn place(program: &Program, at: usize, instruction: &Instruction) -> String {
    let what = match builtin(program, instruction) {
        Some(name) => format!("`{name}`"),
        None => {
            let name = format!("{instruction:?}");
            format!("an instruction ({})", name.split_whitespace().next().unwrap_or_default())
        }
    };
    let span = program.instruction_spans.get(at).and_then(Option::as_ref);
    match span.and_then(|span| Some((program.sources.get(span.source_index)?, span.line))) {
        Some((source, line)) => format!("{what} in {}:{line}", source.name),
        None => what,
    }
}
