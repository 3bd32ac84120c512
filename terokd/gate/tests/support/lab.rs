//! A directory with a home, an upstream and gates, and git to work on them.

use gix::ObjectId;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use terok_gate::{
    Access, CliTransport, Control, GateUrl, GitTransport, GixTransport, HostEnv, Upstream,
};

/// Ends a test that hangs; nothing is measured against it.
pub const HANG: std::time::Duration = std::time::Duration::from_secs(120);

/// A directory, and perhaps the duty to remove it.
pub struct Dir {
    path: PathBuf,
    _owned: Option<tempfile::TempDir>,
}

impl Dir {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

pub struct Lab {
    pub dir: Dir,
    pub env: HostEnv,
}

impl Lab {
    pub fn new() -> Self {
        let owned = tempfile::tempdir().unwrap();
        let lab = Self::at(Dir {
            path: owned.path().to_owned(),
            _owned: Some(owned),
        });
        lab.configure("[user]\nname = T\nemail = t@example.com\n[init]\ndefaultBranch = main\n[gc]\nauto = 0\n");
        lab
    }

    /// A directory that another process made, and will remove.
    pub fn reopen(dir: &Path) -> Self {
        Self::at(Dir {
            path: dir.to_owned(),
            _owned: None,
        })
    }

    fn at(dir: Dir) -> Self {
        let path = std::env::var("PATH").unwrap();
        Self {
            env: HostEnv::new([
                ("PATH", path.as_str()),
                ("HOME", dir.path().to_str().unwrap()),
                ("GIT_CONFIG_NOSYSTEM", "1"),
            ]),
            dir,
        }
    }

    /// Replaces the user's git configuration.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.path(".gitconfig"), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Both transports, with their names.
    pub fn transports(&self) -> [(&'static str, Box<dyn GitTransport>); 2] {
        [
            ("gix", Box::new(GixTransport::new(self.env.clone()))),
            ("cli", Box::new(CliTransport::new(self.env.clone()))),
        ]
    }

    /// An empty bare repository.
    pub fn bare(&self, name: &str) -> PathBuf {
        self.git(self.dir.path(), &["init", "-q", "--bare", name]);
        self.path(name)
    }

    /// `up.git` with two commits on main, a branch and an annotated tag.
    pub fn upstream(&self) -> PathBuf {
        let up = self.bare("up.git");
        self.commit(&up, "main", "one");
        self.commit(&up, "main", "two");
        self.commit(&up, "side/x", "three");
        self.git(&up, &["tag", "-a", "-m", "first", "v1", "main"]);
        up
    }

    /// One commit on a branch of a bare repository, with one file more.
    pub fn commit(&self, repo: &Path, branch: &str, text: &str) -> ObjectId {
        let full = format!("refs/heads/{branch}");
        let parent = self.try_git(repo, &["rev-parse", "-q", "--verify", &full]);
        let blob = self.feed(
            repo,
            &["hash-object", "-w", "--stdin"],
            &format!("{text}\n"),
        );
        let mut entries = parent
            .as_deref()
            .map(|parent| self.git(repo, &["ls-tree", parent]) + "\n")
            .unwrap_or_default();
        entries.push_str(&format!("100644 blob {blob}\t{text}\n"));
        let tree = self.feed(repo, &["mktree"], &entries);
        let mut arguments = vec!["commit-tree", "-m", text, tree.as_str()];
        if let Some(parent) = &parent {
            arguments.extend(["-p", parent]);
        }
        let commit = self.git(repo, &arguments);
        self.git(repo, &["update-ref", &full, &commit]);
        ObjectId::from_hex(commit.as_bytes()).unwrap()
    }

    pub fn rev(&self, repo: &Path, name: &str) -> ObjectId {
        ObjectId::from_hex(self.git(repo, &["rev-parse", "--verify", name]).as_bytes()).unwrap()
    }

    pub fn git(&self, repo: &Path, arguments: &[&str]) -> String {
        self.try_git(repo, arguments)
            .unwrap_or_else(|| panic!("git {arguments:?} failed"))
    }

    pub fn try_git(&self, repo: &Path, arguments: &[&str]) -> Option<String> {
        let output = self.command(repo, arguments).output().unwrap();
        output.status.success().then(|| {
            String::from_utf8(output.stdout)
                .unwrap()
                .trim_end()
                .to_owned()
        })
    }

    pub fn feed(&self, repo: &Path, arguments: &[&str], input: &str) -> String {
        String::from_utf8(self.feed_bytes(repo, arguments, input.as_bytes()))
            .unwrap()
            .trim_end()
            .to_owned()
    }

    pub fn feed_bytes(&self, repo: &Path, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        use std::io::Write;
        use std::process::Stdio;
        let mut child = self
            .command(repo, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        output.stdout
    }

    fn command(&self, repo: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("git");
        command
            .arg("-C")
            .arg(repo)
            .args(arguments)
            .env("HOME", self.dir.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_DATE", "2026-01-01T00:00:00Z")
            .env("GIT_COMMITTER_DATE", "2026-01-01T00:00:00Z");
        command
    }
}

pub fn at(url: &str) -> Upstream {
    Upstream {
        url: GateUrl::parse(url).unwrap(),
        access: Access::Plain,
    }
}

pub fn file_url(path: &Path) -> String {
    format!("file://{}", path.display())
}

/// Every file below a directory with its size, to see that nothing was left or lost.
pub fn listing(dir: &Path) -> BTreeMap<PathBuf, u64> {
    fn walk(dir: &Path, found: &mut BTreeMap<PathBuf, u64>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() {
                found.insert(entry.path(), 0);
                walk(&entry.path(), found);
            } else {
                found.insert(entry.path(), meta.len());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, &mut found);
    found
}

/// Runs a call on a thread and cancels it once `ready` says that it hangs where it should. The call would last for hours
/// by its own limits: that it returns at all is the proof.
pub fn cancelled_after<T: Send>(
    ready: impl FnOnce(),
    call: impl FnOnce(&Control) -> T + Send,
) -> T {
    let control = Control::new();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let handle = control.clone();
        scope.spawn(move || {
            sender.send(call(&handle)).unwrap();
        });
        ready();
        control.cancel();
        receiver
            .recv_timeout(HANG)
            .expect("a cancelled call returns")
    })
}
