//! Measurements of the release build: `terok-bench [--json FILE] [PART…]`, one line each.
//!
//! Ratios compare things measured in the same run on the same machine; absolute figures say what a user feels.
//! Nothing here fails a build: wall-clock limits flake, trends do not.

mod calls;
mod gates;
mod idle;
mod images;
mod latency;

use serde_json::{Value, json};
use std::borrow::Cow;
use std::io::Write as _;
use std::time::Duration;

/// One figure and what it should be.
#[derive(Debug)]
struct Measurement {
    name: String,
    value: f64,
    unit: Cow<'static, str>,
    target: Option<f64>,
}

impl Measurement {
    /// A figure without a target.
    fn figure(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            value,
            unit: unit.into(),
            target: None,
        }
    }

    /// A figure that should not exceed its target.
    fn at_most(name: impl Into<String>, value: f64, unit: &'static str, target: f64) -> Self {
        Self {
            target: Some(target),
            ..Self::figure(name, value, unit)
        }
    }

    fn met(&self) -> bool {
        self.target.is_none_or(|target| self.value <= target)
    }

    fn line(&self) -> String {
        let target = self
            .target
            .map_or_else(|| "-".to_owned(), |target| format!("{target}"));
        let verdict = if self.met() { "met" } else { "missed" };
        format!(
            "bench {} {:.3} {} target {target} {verdict}",
            self.name, self.value, self.unit
        )
    }

    /// What another run of ours has written.
    fn from_json(value: &Value) -> Option<Self> {
        Some(Self {
            name: value["name"].as_str()?.to_owned(),
            value: value["value"].as_f64()?,
            unit: value["unit"].as_str()?.to_owned().into(),
            target: value["target"].as_f64(),
        })
    }

    fn json(&self) -> Value {
        json!({"name": self.name, "value": self.value, "unit": self.unit, "target": self.target, "met": self.met()})
    }
}

/// Sorted samples of one thing.
#[derive(Debug)]
struct Samples(Vec<Duration>);

impl Samples {
    fn take(n: usize, mut one: impl FnMut() -> Duration) -> Self {
        let mut all: Vec<Duration> = (0..n).map(|_| one()).collect();
        all.sort();
        Self(all)
    }

    fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }

    fn p50(&self) -> Duration {
        self.percentile(50)
    }

    fn p99(&self) -> Duration {
        self.percentile(99)
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

type Part = fn() -> Vec<Measurement>;

/// What can be measured by itself.
const PARTS: &[(&str, Part)] = &[
    ("calls", calls::measure),
    ("latency", latency::measure),
    ("idle", idle::measure),
    ("gates", gates::measure),
    ("polling", gates::measure_polling),
    ("images", images::measure),
];

fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (mut file, mut wanted) = (None, Vec::new());
    while let Some(argument) = arguments.next() {
        if argument == "--json" {
            file = arguments.next();
        } else if PARTS.iter().any(|(name, _)| *name == argument) {
            wanted.push(argument);
        } else {
            let parts: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
            return Err(std::io::Error::other(format!(
                "unknown argument `{argument}`; usage: terok-bench [--json FILE] [{}]…",
                parts.join("|")
            )));
        }
    }
    let mut all = Vec::new();
    for (name, part) in PARTS {
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
            continue;
        }
        for measurement in part() {
            writeln!(std::io::stdout(), "{}", measurement.line())?;
            all.push(measurement);
        }
    }
    if let Some(file) = file {
        let list: Vec<Value> = all.iter().map(Measurement::json).collect();
        std::fs::write(file, format!("{:#}\n", Value::Array(list)))?;
    }
    let missed = all.iter().filter(|m| !m.met()).count();
    writeln!(
        std::io::stdout(),
        "{} measurements, {missed} missed",
        all.len()
    )
}

/// A `project.yml` of ordinary size.
fn project(n: usize) -> String {
    format!(
        "# project {n}\nproject:\n  id: proj-{n:04}\n  name: \"Project {n}\"\n  security_class: online\ngit:\n  upstream_url: git@forge.example:lab/p{n}.git\n  default_branch: main\nrun:\n  memory: 4g\n  cpus: 2\nimage:\n  agents: claude,codex\n  user_snippet_inline: |\n    RUN apt-get update\n"
    )
}

/// A world with that many projects.
fn world(projects: usize) -> terok_tests::World {
    let world = terok_tests::World::new();
    for n in 0..projects {
        world.write(
            &format!("$CONFIG/projects/proj-{n:04}/project.yml"),
            project(n),
        );
    }
    world
}
