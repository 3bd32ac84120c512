//! Random histories of an upstream and a gate: whatever happens, what existed only in the gate is never lost.
//!
//! `TEROKD_HISTORIES` is the number of histories, `TEROKD_HISTORY_SEED` the first one's seed.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

mod support;

use gix::ObjectId;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use support::gates::{World, at_points, fsck};
use terok_gate::{
    CliTransport, Control, GitTransport, SyncOptions, apply_pending, backups, pending,
    restore_backup,
};
use terok_proto::gate::{ConfirmedOp, PendingOp};

const NAMES: &[&str] = &[
    "main", "dev", "dev/a", "dev/b", "topic", "topic/a", "Main", "x",
];
const STEPS: u64 = 14;

/// SplitMix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() {
            return None;
        }
        let at = self.roll(items.len() as u64);
        items.get(usize::try_from(at).unwrap())
    }
}

/// What a simulated crash is recognised by.
struct Crash;

struct History {
    world: World,
    cli: CliTransport,
    dice: Dice,
    made: u32,
    log: Vec<String>,
    /// Commits that agents made.
    theirs: BTreeSet<ObjectId>,
}

fn refs(world: &World, repo: &Path) -> BTreeMap<String, ObjectId> {
    world
        .lab
        .git(
            repo,
            &[
                "for-each-ref",
                "--format=%(refname:lstrip=2) %(objectname)",
                "refs/heads",
            ],
        )
        .lines()
        .map(|line| {
            let (name, id) = line.split_once(' ').unwrap();
            (name.to_owned(), ObjectId::from_hex(id.as_bytes()).unwrap())
        })
        .collect()
}

impl History {
    fn new(seed: u64) -> Self {
        let world = World::new();
        Self {
            cli: CliTransport::new(world.lab.env.clone()),
            world,
            dice: Dice(seed),
            made: 0,
            log: Vec::new(),
            theirs: BTreeSet::new(),
        }
    }

    fn text(&mut self) -> String {
        self.made += 1;
        format!("f{}", self.made)
    }

    fn name(&mut self) -> String {
        (*self.dice.of(NAMES).unwrap()).to_owned()
    }

    fn some_branch(&mut self, repo: &Path) -> Option<(String, ObjectId)> {
        let all: Vec<_> = refs(&self.world, repo).into_iter().collect();
        self.dice.of(&all).cloned()
    }

    /// Whether git could make that branch.
    fn fits(&self, repo: &Path, name: &str) -> bool {
        refs(&self.world, repo).keys().all(|other| {
            !other.starts_with(&format!("{name}/")) && !name.starts_with(&format!("{other}/"))
        })
    }

    fn upstream_changes(&mut self) {
        let up = self.world.up.clone();
        match self.dice.roll(7) {
            0 | 1 => {
                let (name, text) = (self.name(), self.text());
                if self.fits(&up, &name) {
                    self.log.push(format!("upstream commits to {name}"));
                    self.world.commit_up(&name, &text);
                }
            }
            2 => {
                if let Some((name, _)) = self.some_branch(&up) {
                    let parent = self
                        .world
                        .lab
                        .try_git(&up, &["rev-parse", "-q", "--verify", &format!("{name}~1")]);
                    if let Some(parent) = parent {
                        self.log.push(format!("upstream rewrites {name}"));
                        let id = ObjectId::from_hex(parent.as_bytes()).unwrap();
                        self.world.put(&up, &name, Some(id));
                        let text = self.text();
                        self.world.commit_up(&name, &text);
                    }
                }
            }
            3 => {
                if let Some((name, _)) = self.some_branch(&up) {
                    self.log.push(format!("upstream deletes {name}"));
                    self.world.put(&up, &name, None);
                }
            }
            4 => {
                if let Some((name, id)) = self.some_branch(&up) {
                    let new = self.name();
                    self.world.put(&up, &name, None);
                    if self.fits(&up, &new) {
                        self.log.push(format!("upstream renames {name} to {new}"));
                        self.world.put(&up, &new, Some(id));
                    } else {
                        self.world.put(&up, &name, Some(id));
                    }
                }
            }
            5 => {
                if let Some((name, _)) = self.some_branch(&up) {
                    self.log.push(format!("upstream's HEAD is {name}"));
                    let full = format!("refs/heads/{name}");
                    self.world.lab.git(&up, &["symbolic-ref", "HEAD", &full]);
                }
            }
            _ => {
                if let Some((_, id)) = self.some_branch(&up) {
                    let tag = format!("t{}", self.dice.roll(3));
                    self.log.push(format!("upstream tags {tag}"));
                    self.world
                        .lab
                        .git(&up, &["tag", "-f", &tag, &id.to_string()]);
                }
            }
        }
    }

    /// What an agent's push does, with what the hook of the gate server does about it.
    fn agent_pushes(&mut self) {
        let gate = self.world.gate().to_owned();
        match self.dice.roll(5) {
            0..=2 => {
                let (name, text) = (self.name(), self.text());
                if self.fits(&gate, &name) {
                    self.log.push(format!("agent commits to {name}"));
                    let id = self.world.commit_gate(&name, &text);
                    self.theirs.insert(id);
                }
            }
            3 => {
                if let Some((name, id)) = self.some_branch(&gate) {
                    self.log.push(format!("agent force-pushes {name}"));
                    self.back_up(&name, id);
                    self.world.put(&gate, &name, None);
                    let text = self.text();
                    let id = self.world.commit_gate(&name, &text);
                    self.theirs.insert(id);
                }
            }
            _ => {
                if let Some((name, id)) = self.some_branch(&gate) {
                    self.log.push(format!("agent deletes {name}"));
                    self.back_up(&name, id);
                    self.world.put(&gate, &name, None);
                }
            }
        }
    }

    fn back_up(&self, branch: &str, id: ObjectId) {
        let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        let name = format!(
            "refs/terok/backup/{branch}/{stamp}-{}",
            id.to_hex_with_len(12)
        );
        let id = id.to_string();
        self.world.lab.git(
            self.world.gate(),
            &[
                "update-ref",
                "--create-reflog",
                "-m",
                "terok: agent_push",
                &name,
                &id,
            ],
        );
    }

    fn sync(&mut self) {
        let lossless = self.dice.roll(3) == 0;
        let branches = if self.dice.roll(4) == 0 {
            vec![self.name(), self.name()]
        } else {
            Vec::new()
        };
        let cli = self.dice.roll(5) == 0;
        let crash = match self.dice.roll(4) {
            0 => Some(self.dice.roll(8)),
            _ => None,
        };
        let push = self.dice.roll(4) == 0;
        let options = SyncOptions {
            branches,
            auto_apply_lossless: lossless,
            backup_retention_days: 30,
            ..SyncOptions::default()
        };
        self.log.push(format!(
            "sync of {:?}, lossless {lossless}, cli {cli}, crash {crash:?}, push {push}",
            options.branches
        ));
        // Somebody pushes in the middle of it.
        let pushed = push
            .then(|| {
                let (name, text) = (self.name(), self.text());
                let gate = self.world.gate().to_owned();
                (gate.is_dir() && self.fits(&gate, &name)).then(|| {
                    let id = self.world.commit_gate("aside", &text);
                    self.theirs.insert(id);
                    let old = refs(&self.world, &gate).get(&name).copied();
                    if let Some(old) = old {
                        self.back_up(&name, old);
                    }
                    self.log.push(format!("  pushed in between: {name} {id}"));
                    (gate, name, id)
                })
            })
            .flatten();
        let (mut countdown, mut pushed) = (crash, pushed);
        let transport: &dyn GitTransport = if cli {
            &self.cli
        } else {
            &self.world.transport
        };
        let world = &self.world;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            at_points(
                move |at| {
                    if at == "gate.sync.ready"
                        && let Some((gate, name, id)) = pushed.take()
                    {
                        let git = std::process::Command::new("git")
                            .arg("-C")
                            .arg(gate)
                            .args(["update-ref", &format!("refs/heads/{name}"), &id.to_string()])
                            .status()
                            .unwrap();
                        assert!(git.success());
                    }
                    match &mut countdown {
                        Some(0) => std::panic::resume_unwind(Box::new(Crash)),
                        Some(left) => *left -= 1,
                        None => {}
                    }
                },
                || world.sync_by(transport, &options),
            )
        }));
        match outcome {
            Ok(result) => {
                let result = result.unwrap_or_else(|fault| panic!("{fault:?}"));
                // A gate whose HEAD upstream does not help with is told, not repaired.
                for error in &result.errors {
                    assert!(error.contains("HEAD"), "{result:?}");
                }
                for op in &result.pending {
                    if op.lossless {
                        let gate = ObjectId::from_hex(op.gate_sha.as_bytes()).unwrap();
                        assert!(!self.theirs.contains(&gate), "{op:?} is an agent's");
                    }
                }
            }
            Err(panic) => assert!(panic.is::<Crash>(), "the sync panicked"),
        }
    }

    fn human_decides(&mut self) {
        let spec = &self.world.spec;
        if self.dice.roll(3) == 0 {
            let all = backups(spec).unwrap();
            if let Some(backup) = self.dice.of(&all) {
                self.log.push(format!("restore of {}", backup.reference));
                match restore_backup(spec, &backup.reference, &Control::new()) {
                    Ok(_) => {}
                    Err(fault) => assert!(fault.message.contains("in its way"), "{fault:?}"),
                }
            }
            return;
        }
        let all = pending(spec).unwrap();
        if let Some(op) = self.dice.of(&all) {
            self.log.push(format!("apply of {op:?}"));
            let confirmed = ConfirmedOp {
                branch: op.branch.clone(),
                gate_sha: op.gate_sha.clone(),
            };
            let done = apply_pending(spec, &[confirmed], &Control::new()).unwrap();
            assert!(done.refused.is_empty(), "{done:?}");
            assert!(done.applied[0].backup_ref.is_some());
        }
    }

    fn step(&mut self) {
        match self.dice.roll(10) {
            0..=3 => self.upstream_changes(),
            4..=5 if self.world.gate().is_dir() => self.agent_pushes(),
            6 if self.world.gate().is_dir() => self.human_decides(),
            _ => self.sync(),
        }
        if self.world.gate().is_dir() {
            self.check();
        }
    }

    fn check(&self) {
        let lab = &self.world.lab;
        let reachable: BTreeSet<ObjectId> = lab
            .git(self.world.gate(), &["rev-list", "--all"])
            .lines()
            .map(|line| ObjectId::from_hex(line.as_bytes()).unwrap())
            .collect();
        for id in &self.theirs {
            assert!(reachable.contains(id), "{id} is lost");
        }
    }

    /// In the end everything comes to rest.
    fn settle(&mut self) {
        self.log.push("settling".to_owned());
        let result = self.world.try_sync(&SyncOptions::default()).unwrap();
        for error in &result.errors {
            assert!(error.contains("HEAD"), "{result:?}");
        }
        self.check();
        fsck(&self.world.lab, self.world.gate());
        assert_eq!(
            known(pending(&self.world.spec).unwrap()),
            known(result.pending.clone())
        );
        let (gate, up) = (
            refs(&self.world, self.world.gate()),
            refs(&self.world, &self.world.up),
        );
        let own: BTreeSet<&str> = result
            .gate_only_branches
            .iter()
            .map(|own| own.branch.as_str())
            .chain(result.pending.iter().map(|op| op.branch.as_str()))
            .collect();
        for (branch, id) in &up {
            match gate.get(branch) {
                Some(at) if at == id => {}
                Some(_) => assert!(own.contains(branch.as_str()), "{branch} is behind"),
                None => assert!(!self.fits(self.world.gate(), branch), "{branch} is missing"),
            }
        }
        for branch in gate.keys().filter(|branch| !up.contains_key(*branch)) {
            assert!(own.contains(branch.as_str()), "{branch} is not told of");
        }
        // The numbers are git's.
        for own in &result.gate_only_branches {
            if let Some(ahead) = own.ahead {
                let range = format!("refs/terok/upstream/{0}..refs/heads/{0}", own.branch);
                let counted = self
                    .world
                    .lab
                    .git(self.world.gate(), &["rev-list", "--count", &range]);
                assert_eq!(ahead.to_string(), counted, "{}", own.branch);
            }
        }
        let before = self.world.refs();
        let again = self.world.try_sync(&SyncOptions::default()).unwrap();
        assert_eq!(known(again.pending), known(result.pending));
        assert!(again.updated_branches.is_empty());
        assert_eq!(self.world.refs(), before);
    }
}

/// What was not known of upstream before a sync is what that sync saw, afterwards.
fn known(mut ops: Vec<PendingOp>) -> Vec<PendingOp> {
    for op in &mut ops {
        if op.old_snapshot_sha.is_none() {
            op.old_snapshot_sha.clone_from(&op.upstream_sha);
        }
    }
    ops
}

#[test]
fn nothing_that_only_the_gate_has_is_ever_lost() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let count = number("TEROKD_HISTORIES", 40);
    let first = number("TEROKD_HISTORY_SEED", 1);
    let next = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if n >= count {
                        break;
                    }
                    let seed = first + n;
                    let mut history = History::new(seed);
                    let outcome = catch_unwind(AssertUnwindSafe(|| {
                        for _ in 0..STEPS {
                            history.step();
                        }
                        history.settle();
                    }));
                    if let Err(panic) = outcome {
                        eprintln!("history {seed}:\n{}", history.log.join("\n"));
                        std::panic::resume_unwind(panic);
                    }
                }
            });
        }
    });
}
