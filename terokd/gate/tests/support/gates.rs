//! A gate with its upstream, and the things that happen to both.

use super::lab::{Lab, at, file_url};
use gix::ObjectId;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use terok_gate::{
    Control, GateSpec, GateUrl, GitTransport, GixTransport, Limits, SyncOptions, SyncReport,
    Upstream, refresh_cache, sync,
};
use terok_proto::Fault;
use terok_proto::gate::{GateSyncResult, PendingOp};

type Act = Box<dyn FnMut(&str)>;

thread_local! {
    static ACT: RefCell<Option<Act>> = const { RefCell::new(None) };
}

fn hook(point: &str) {
    // Taken out while it runs, so that what it does may come by here again.
    let act = ACT.with(|act| act.borrow_mut().take());
    if let Some(mut act) = act {
        act(point);
        ACT.with(|slot| {
            slot.borrow_mut().get_or_insert(act);
        });
    }
}

/// Calls `act` at every point that this thread comes by during `work`.
pub fn at_points<T>(act: impl FnMut(&str) + 'static, work: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            ACT.with(|slot| slot.borrow_mut().take());
        }
    }
    terok_gate::set_crash_hook(hook);
    let _reset = Reset;
    ACT.with(|slot| *slot.borrow_mut() = Some(Box::new(act)));
    work()
}

/// Calls `act` the first time this thread comes by `point` during `work`; it has to.
pub fn at_point<T>(
    point: &'static str,
    act: impl FnOnce() + 'static,
    work: impl FnOnce() -> T,
) -> T {
    let mut act = Some(act);
    let called = std::rc::Rc::new(std::cell::Cell::new(false));
    let seen = called.clone();
    let result = at_points(
        move |at| {
            if at == point
                && let Some(act) = act.take()
            {
                seen.set(true);
                act();
            }
        },
        work,
    );
    assert!(called.get(), "`{point}` was never passed");
    result
}

pub struct World {
    pub lab: Lab,
    pub up: PathBuf,
    pub spec: GateSpec,
    pub transport: GixTransport,
}

impl World {
    /// An upstream with two commits on main, a branch and a tag, and no gate yet.
    pub fn new() -> Self {
        let lab = Lab::new();
        let up = lab.upstream();
        Self::of(lab, up)
    }

    /// An upstream without a commit.
    pub fn empty() -> Self {
        let lab = Lab::new();
        let up = lab.bare("up.git");
        Self::of(lab, up)
    }

    fn of(lab: Lab, up: PathBuf) -> Self {
        let base = lab.path("gate");
        let spec = GateSpec {
            path: base.join("alpha.git"),
            base,
            upstream_url: Some(GateUrl::parse(&file_url(&up)).unwrap()),
            default_branch: Some("main".to_owned()),
            cache_dir: None,
            search_path: std::env::var_os("PATH").unwrap_or_default(),
        };
        Self {
            transport: GixTransport::new(lab.env.clone()),
            lab,
            up,
            spec,
        }
    }

    /// One that another process made.
    pub fn reopen(dir: &Path) -> Self {
        let lab = Lab::reopen(dir);
        let up = lab.path("up.git");
        let mut world = Self::of(lab, up);
        let cache = world.lab.path("cache/alpha");
        world.spec.cache_dir = Some(cache);
        world
    }

    /// The same with a gate.
    pub fn synced() -> Self {
        let world = Self::new();
        let result = world.sync();
        assert!(result.created && result.success, "{result:?}");
        world
    }

    pub fn gate(&self) -> &Path {
        &self.spec.path
    }

    pub fn upstream(&self) -> Upstream {
        at(&file_url(&self.up))
    }

    pub fn try_sync(&self, options: &SyncOptions) -> Result<GateSyncResult, Fault> {
        self.sync_by(&self.transport, options)
    }

    pub fn sync_by(
        &self,
        transport: &dyn GitTransport,
        options: &SyncOptions,
    ) -> Result<GateSyncResult, Fault> {
        self.report_by(transport, options)
            .map(|report| report.result)
    }

    pub fn report_by(
        &self,
        transport: &dyn GitTransport,
        options: &SyncOptions,
    ) -> Result<SyncReport, Fault> {
        let upstream = self.upstream();
        let upstream = self.spec.upstream_url.is_some().then_some(&upstream);
        let control = Control::new();
        let limits = Limits::default();
        let mut report = sync(&self.spec, upstream, transport, options, &limits, &control)?;
        refresh_cache(&self.spec, &mut report, &control);
        Ok(report)
    }

    /// Syncs everything, and it has to work.
    pub fn sync(&self) -> GateSyncResult {
        let result = self.try_sync(&SyncOptions::default()).unwrap();
        assert!(result.success, "{result:?}");
        result
    }

    pub fn sync_branches(&self, branches: &[&str]) -> GateSyncResult {
        self.try_sync(&SyncOptions {
            branches: branches.iter().map(|branch| (*branch).to_owned()).collect(),
            ..SyncOptions::default()
        })
        .unwrap()
    }

    pub fn commit_up(&self, branch: &str, text: &str) -> ObjectId {
        self.lab.commit(&self.up, branch, text)
    }

    /// What an agent's push amounts to.
    pub fn commit_gate(&self, branch: &str, text: &str) -> ObjectId {
        self.lab.commit(self.gate(), branch, text)
    }

    /// Puts a branch of a repository elsewhere; none removes it.
    pub fn put(&self, repo: &Path, branch: &str, at: Option<ObjectId>) {
        let name = format!("refs/heads/{branch}");
        match at {
            Some(id) => self.lab.git(repo, &["update-ref", &name, &id.to_string()]),
            None => self.lab.git(repo, &["update-ref", "-d", &name]),
        };
    }

    /// Throws away the last commit of upstream's branch and makes another one.
    pub fn rewrite_up(&self, branch: &str, text: &str) -> ObjectId {
        let parent = self.lab.try_git(
            &self.up,
            &[
                "rev-parse",
                "-q",
                "--verify",
                &format!("refs/heads/{branch}~1"),
            ],
        );
        let parent = parent.map(|hex| ObjectId::from_hex(hex.as_bytes()).unwrap());
        self.put(&self.up, branch, parent);
        self.commit_up(branch, text)
    }

    /// Where a ref of the gate is.
    pub fn at(&self, name: &str) -> Option<ObjectId> {
        let hex = self
            .lab
            .try_git(self.gate(), &["rev-parse", "-q", "--verify", name])?;
        ObjectId::from_hex(hex.as_bytes()).ok()
    }

    pub fn head(&self, branch: &str) -> Option<ObjectId> {
        self.at(&format!("refs/heads/{branch}"))
    }

    pub fn up_head(&self, branch: &str) -> ObjectId {
        self.lab.rev(&self.up, &format!("refs/heads/{branch}"))
    }

    pub fn default_head(&self) -> String {
        self.lab.git(self.gate(), &["symbolic-ref", "HEAD"])
    }

    /// All refs with what they point at.
    pub fn refs(&self) -> String {
        self.lab.git(
            self.gate(),
            &["for-each-ref", "--format=%(refname) %(objectname)"],
        )
    }

    pub fn fsck(&self) {
        fsck(&self.lab, self.gate());
    }

    pub fn pending(&self) -> Vec<PendingOp> {
        terok_gate::pending(&self.spec).unwrap()
    }
}

/// A repository is whole, and nothing is left of work in it.
pub fn fsck(lab: &Lab, repo: &Path) {
    let said = lab.git(
        repo,
        &["fsck", "--strict", "--no-dangling", "--no-progress"],
    );
    assert_eq!(said, "");
    let mut dirs = vec![repo.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(
                !name.ends_with(".lock") && !name.starts_with("tmp_") && name != "terok-locks",
                "{} was left",
                entry.path().display()
            );
            if entry.file_type().unwrap().is_dir() {
                dirs.push(entry.path());
            }
        }
    }
}

pub fn pending_of<'a>(ops: &'a [PendingOp], branch: &str) -> &'a PendingOp {
    ops.iter()
        .find(|op| op.branch == branch)
        .unwrap_or_else(|| panic!("nothing pending for {branch}: {ops:?}"))
}
