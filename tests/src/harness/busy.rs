//! Agents that call and call, whatever becomes of the gateway.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Agent, Mayfly};

/// What the agents have seen.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Calls that were answered with an outcome: id and state.
    pub answered: BTreeMap<String, String>,
    /// How often each problem was answered.
    pub problems: BTreeMap<String, u64>,
    /// Requests that ended without an answer: the gateway was gone.
    pub unanswered: u64,
    /// The longest that anything took.
    pub longest: Duration,
}

/// Agents at work.
pub struct Busy {
    agent: Arc<Mutex<Agent>>,
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
    agents: TaskTracker,
}

impl Busy {
    /// For each tool, that many who call it one call after another.
    pub fn start(agent: Agent, tools: &[(&str, usize)]) -> Self {
        let this = Self {
            agent: Arc::new(Mutex::new(agent)),
            seen: Arc::default(),
            stop: CancellationToken::new(),
            agents: TaskTracker::new(),
        };
        for (tool, count) in tools {
            for _ in 0..*count {
                this.agents.spawn(work(this.agent.clone(), this.seen.clone(), this.stop.clone(), (*tool).to_owned()));
            }
        }
        this
    }

    /// The gateway listens somewhere else now.
    pub fn moved(&self, to: &Mayfly) {
        self.agent.lock().expect("the agent").url.clone_from(&to.url);
    }

    /// What they have seen until now.
    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("what was seen").clone()
    }

    /// Lets each end its call and stop.
    pub async fn stop(self) -> Seen {
        self.stop.cancel();
        self.agents.close();
        self.agents.wait().await;
        self.seen()
    }
}

async fn work(agent: Arc<Mutex<Agent>>, seen: Arc<Mutex<Seen>>, stop: CancellationToken, tool: String) {
    while !stop.is_cancelled() {
        let agent = agent.lock().expect("the agent").clone();
        let begun = Instant::now();
        let request = agent.request("POST", "/v1/calls").json(&json!({"tool": tool, "arguments": {"text": "x"}}));
        let answer = async { request.send().await?.json::<Value>().await }.await;
        let problem = {
            let mut seen = seen.lock().expect("what was seen");
            seen.longest = seen.longest.max(begun.elapsed());
            match answer {
                Ok(body) => match (body["id"].as_str(), body["state"].as_str()) {
                    (Some(id), Some(state)) if body["type"].is_null() => {
                        seen.answered.insert(id.to_owned(), state.to_owned());
                        false
                    }
                    _ => {
                        let kind = format!("{} {}", body["status"], body["type"].as_str().unwrap_or("no problem"));
                        *seen.problems.entry(kind).or_default() += 1;
                        true
                    }
                },
                Err(_) => {
                    seen.unanswered += 1;
                    true
                }
            }
        };
        if problem {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
