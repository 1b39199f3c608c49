//! Figures: measured beside a baseline in the same run, printed as a table, appended to `target/bench.jsonl`.

use std::io::Write;
use std::time::{Duration, Instant};

use serde::Serialize;

/// Median and tail of a series, in its unit.
#[derive(Debug, Clone, Copy)]
pub struct Quantiles {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
}

impl Quantiles {
    /// Of a series of durations, in microseconds.
    pub fn micros(mut series: Vec<Duration>) -> Self {
        assert!(!series.is_empty(), "nothing was measured");
        series.sort_unstable();
        let at = |q: f64| series[((series.len() - 1) as f64 * q).round() as usize].as_secs_f64() * 1e6;
        Self { p50: at(0.5), p99: at(0.99) }
    }

    /// A single number, such as a throughput.
    pub const fn single(value: f64) -> Self {
        Self { p50: value, p99: value }
    }
}

/// Times `rounds` runs of `work`, after a tenth as many to warm up.
pub async fn series<F: AsyncFnMut()>(rounds: usize, mut work: F) -> Quantiles {
    for _ in 0..(rounds / 10).max(1) {
        work().await;
    }
    let mut taken = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begun = Instant::now();
        work().await;
        taken.push(begun.elapsed());
    }
    Quantiles::micros(taken)
}

/// What a figure is to reach.
#[derive(Debug, Clone, Copy)]
pub enum Aim {
    /// Ours is at most this, in the figure's unit.
    AtMost(f64),
    /// Ours / baseline is at most this.
    RatioAtMost(f64),
    /// Ours / baseline is at least this.
    RatioAtLeast(f64),
    /// Nothing: it is there to be known.
    None,
}

/// One line of the table and of `target/bench.jsonl`.
#[derive(Debug, Serialize)]
pub struct Figure {
    name: String,
    unit: &'static str,
    ours_p50: f64,
    ours_p99: f64,
    baseline: String,
    baseline_p50: f64,
    ratio: f64,
    aim: String,
    met: Option<bool>,
}

impl Figure {
    /// `ours` beside `baseline`, both measured in this run.
    pub fn new(name: &str, unit: &'static str, ours: Quantiles, baseline: (&str, Quantiles), aim: Aim) -> Self {
        let ratio = ours.p50 / baseline.1.p50;
        let (aim, met) = match aim {
            Aim::AtMost(limit) => (format!("<= {} {unit}", round(limit)), Some(ours.p50 <= limit)),
            Aim::RatioAtMost(limit) => (format!("<= {} x", round(limit)), Some(ratio <= limit)),
            Aim::RatioAtLeast(limit) => (format!(">= {limit} x"), Some(ratio >= limit)),
            Aim::None => (String::new(), None),
        };
        let (ours_p50, ours_p99, baseline_p50) = (round(ours.p50), round(ours.p99), round(baseline.1.p50));
        Self {
            name: name.into(),
            unit,
            ours_p50,
            ours_p99,
            baseline: baseline.0.into(),
            baseline_p50,
            ratio: round(ratio),
            aim,
            met,
        }
    }
}

/// To three places, or to three digits where that says more.
fn round(value: f64) -> f64 {
    let scale = if value.abs() < 0.1 { 1e5 } else { 1e3 };
    (value * scale).round() / scale
}

/// Prints the table and appends the lines.
pub fn publish(figures: &[Figure]) {
    println!("| figure | unit | p50 | p99 | baseline | its p50 | ratio | aim | met |\n|---|---|---|---|---|---|---|---|---|");
    let target = crate::harness::target();
    let mut file = std::fs::File::options().create(true).append(true).open(target.join("bench.jsonl")).expect("bench.jsonl");
    for f in figures {
        let met = f.met.map_or("", |met| if met { "yes" } else { "NO" });
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {met} |",
            f.name, f.unit, f.ours_p50, f.ours_p99, f.baseline, f.baseline_p50, f.ratio, f.aim
        );
        writeln!(file, "{}", serde_json::to_string(f).expect("a figure is JSON")).expect("bench.jsonl");
    }
}
