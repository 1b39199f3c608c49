//! What the kernel counted for this container: read, never needed. A container shows its own control group under `/sys/fs/cgroup`,
//! version 2 in one folder, version 1 in one a controller.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crate::wire::{Resource, Usage};

const ROOT: &str = "/sys/fs/cgroup";

/// Counters at one moment; `None` where they cannot be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counters {
    oom_kills: Option<u64>,
    refused_forks: Option<u64>,
    cpu: Option<Duration>,
    peak_memory: Option<u64>,
}

impl Counters {
    pub(super) fn read() -> Self {
        Self::read_with(|path| fs::read_to_string(format!("{ROOT}/{path}")).ok())
    }

    fn read_with(file: impl Fn(&str) -> Option<String>) -> Self {
        let first = |paths: [&str; 2], name: &str| paths.into_iter().find_map(|path| value(&file(path)?, name));
        Self {
            oom_kills: first(["memory.events", "memory/memory.oom_control"], "oom_kill"),
            refused_forks: first(["pids.events", "pids/pids.events"], "max"),
            cpu: first(["cpu.stat", "cpu.stat"], "usage_usec")
                .map(Duration::from_micros)
                .or_else(|| Some(Duration::from_nanos(value(&file("cpuacct/cpuacct.usage")?, "")?))),
            peak_memory: first(["memory.peak", "memory/memory.max_usage_in_bytes"], ""),
        }
    }

    /// What grew since `before`.
    pub(super) fn since(self, before: Self) -> Growth {
        let grew = |now: Option<u64>, then: Option<u64>| Some(now? > then?);
        let cpu = self.cpu.zip(before.cpu).map(|(now, then)| now.saturating_sub(then));
        Growth {
            oom_killed: grew(self.oom_kills, before.oom_kills),
            forks_refused: grew(self.refused_forks, before.refused_forks),
            usage: Usage { cpu: cpu.unwrap_or_default(), peak_memory: self.peak_memory },
        }
    }
}

/// What happened between two readings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Growth {
    /// Whether the kernel killed for memory; `None` where it does not say.
    pub(super) oom_killed: Option<bool>,
    forks_refused: Option<bool>,
    pub(super) usage: Usage,
}

impl Growth {
    pub(super) fn exhausted(&self) -> BTreeSet<Resource> {
        let memory = (self.oom_killed == Some(true)).then_some(Resource::Memory);
        let processes = (self.forks_refused == Some(true)).then_some(Resource::Processes);
        memory.into_iter().chain(processes).collect()
    }
}

/// The number behind `name` on its line; with no name, the file's only number.
fn value(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (name.is_empty() || words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read_and_neither_is_needed() {
        let v2 = |path: &str| match path {
            "memory.events" => Some("low 0\noom 2\noom_kill 1\noom_group_kill 0\n".to_owned()),
            "pids.events" => Some("max 3\n".to_owned()),
            "cpu.stat" => Some("usage_usec 1500\nuser_usec 1000\n".to_owned()),
            "memory.peak" => Some("4096\n".to_owned()),
            _ => None,
        };
        let v1 = |path: &str| match path {
            "memory/memory.oom_control" => Some("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n".to_owned()),
            "pids/pids.events" => Some("max 3\n".to_owned()),
            // Version 1 has a file of this name too, without the usage.
            "cpu.stat" => Some("nr_periods 0\n".to_owned()),
            "cpuacct/cpuacct.usage" => Some("1500000\n".to_owned()),
            "memory/memory.max_usage_in_bytes" => Some("4096\n".to_owned()),
            _ => None,
        };
        let expected = Counters {
            oom_kills: Some(1),
            refused_forks: Some(3),
            cpu: Some(Duration::from_micros(1500)),
            peak_memory: Some(4096),
        };
        assert_eq!(Counters::read_with(v2), expected);
        assert_eq!(Counters::read_with(v1), expected);
        assert_eq!(Counters::read_with(|_| None), Counters::default());
        assert_eq!(Counters::read_with(|_| Some("nonsense max\n-1".into())), Counters::default());
    }

    #[test]
    fn only_growth_is_reported() {
        let before = Counters { oom_kills: Some(1), refused_forks: Some(0), ..Counters::default() };
        let after = Counters { oom_kills: Some(1), refused_forks: Some(2), ..before };
        assert_eq!(after.since(before).exhausted(), BTreeSet::from([Resource::Processes]));
        assert_eq!(after.since(Counters::default()).oom_killed, None);
    }
}
