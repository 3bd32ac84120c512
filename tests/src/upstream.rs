//! Upstream repositories: bare ones, made and changed by the git program without a working tree.

use crate::world::Runner;
use crate::{World, programs};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A bare repository that plays upstream.
#[derive(Clone, Debug)]
pub struct Upstream {
    git: PathBuf,
    runner: Runner,
    path: PathBuf,
}

impl Upstream {
    /// An empty one below the world's home, unless git is not installed.
    pub fn empty(world: &World, name: &str) -> Option<Self> {
        let git = programs::need("git")?;
        let base = world.path("$HOME/upstreams");
        world.mkdirs(&base);
        let upstream = Self {
            git,
            runner: world.runner(),
            path: base.join(format!("{name}.git")),
        };
        let path = upstream.path.to_str().expect("a path of our own");
        let mut init = upstream.runner.command(&upstream.git);
        upstream.done(
            init.args(["init", "-q", "--bare", "--initial-branch=main", path]),
            b"",
        );
        Some(upstream)
    }

    /// A repository that somebody else has made, a gate for example.
    pub fn open(world: &World, path: &Path) -> Option<Self> {
        Some(Self {
            git: programs::need("git")?,
            runner: world.runner(),
            path: path.to_owned(),
        })
    }

    /// One with two commits on `main`, one more on `side`, and a tag.
    pub fn new(world: &World, name: &str) -> Option<Self> {
        let upstream = Self::empty(world, name)?;
        upstream.commit("main", "one");
        upstream.commit("main", "two");
        upstream.branch("side", "main");
        upstream.commit("side", "three");
        upstream.annotated_tag("v1", "main");
        Some(upstream)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory's own name, `NAME.git`.
    pub fn name(&self) -> String {
        let name = self.path.file_name().expect("a name");
        name.to_string_lossy().into_owned()
    }

    /// The directory that holds it and other upstreams of the same world.
    pub fn base(&self) -> &Path {
        self.path.parent().expect("a parent")
    }

    /// Its address as a file.
    pub fn file_url(&self) -> String {
        format!("file://{}", self.path.display())
    }

    /// Adds a commit with one file more to a branch, which is made if it does not exist.
    pub fn commit(&self, branch: &str, text: &str) -> String {
        self.commit_file(branch, text, format!("{text}\n").as_bytes())
    }

    /// Adds a commit that adds or changes one file, named like its message.
    pub fn commit_file(&self, branch: &str, name: &str, content: &[u8]) -> String {
        let parent = self.find(&format!("refs/heads/{branch}"));
        let commit = self.commit_on(parent.as_deref(), name, content);
        self.git(&["update-ref", &format!("refs/heads/{branch}"), &commit]);
        commit
    }

    /// A commit that nothing points to yet.
    fn commit_on(&self, parent: Option<&str>, name: &str, content: &[u8]) -> String {
        let blob = self.feed(&["hash-object", "-w", "--stdin"], content);
        let kept = parent.map(|parent| self.git(&["ls-tree", parent]));
        let kept = kept.unwrap_or_default();
        let other = |line: &&str| !line.ends_with(&format!("\t{name}"));
        let mut entries: Vec<&str> = kept.lines().filter(other).collect();
        let entry = format!("100644 blob {blob}\t{name}");
        entries.push(&entry);
        let tree = self.feed(&["mktree"], (entries.join("\n") + "\n").as_bytes());
        let mut arguments = vec!["commit-tree", "-m", name, &tree];
        arguments.extend(parent.into_iter().flat_map(|parent| ["-p", parent]));
        self.git(&arguments)
    }

    /// Replaces the newest commit of a branch by another, as a force-push does.
    pub fn force_push(&self, branch: &str, text: &str) -> String {
        let parent = self.find(&format!("refs/heads/{branch}~1"));
        let commit = self.commit_on(parent.as_deref(), text, text.as_bytes());
        self.git(&["update-ref", &format!("refs/heads/{branch}"), &commit]);
        commit
    }

    /// Makes or moves a branch.
    pub fn branch(&self, branch: &str, to: &str) {
        self.git(&["update-ref", &format!("refs/heads/{branch}"), to]);
    }

    /// Deletes a branch.
    pub fn delete(&self, branch: &str) {
        self.git(&["update-ref", "-d", &format!("refs/heads/{branch}")]);
    }

    /// Renames a branch.
    pub fn rename(&self, branch: &str, to: &str) {
        self.git(&["branch", "-M", branch, to]);
    }

    /// Makes or moves a tag without an object of its own.
    pub fn tag(&self, tag: &str, to: &str) {
        self.git(&["tag", "-f", tag, to]);
    }

    /// Makes or moves a tag with an object of its own.
    pub fn annotated_tag(&self, tag: &str, to: &str) {
        self.git(&["tag", "-f", "-a", "-m", tag, tag, to]);
    }

    /// Lets HEAD name another branch.
    pub fn default_branch(&self, branch: &str) {
        self.git(&["symbolic-ref", "HEAD", &format!("refs/heads/{branch}")]);
    }

    /// Makes many branches, `PREFIX0` and so on, at the same commit.
    pub fn many(&self, prefix: &str, count: usize, to: &str) {
        let to = self.head(to);
        let lines: String = (0..count)
            .map(|n| format!("create refs/heads/{prefix}{n} {to}\n"))
            .collect();
        self.feed(&["update-ref", "--stdin"], lines.as_bytes());
        self.git(&["pack-refs", "--all"]);
    }

    /// Adds a commit with a file of that size, which nothing can compress.
    pub fn big_blob(&self, branch: &str, size: usize) -> String {
        // xorshift64: always the same noise.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut noise = Vec::with_capacity(size + 8);
        while noise.len() < size {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            noise.extend_from_slice(&state.to_le_bytes());
        }
        noise.truncate(size);
        self.commit_file(branch, "big", &noise)
    }

    /// The commit of a branch.
    ///
    /// # Panics
    /// There is none.
    pub fn head(&self, branch: &str) -> String {
        let found = self.find(branch);
        found.unwrap_or_else(|| panic!("{} has no {branch}", self.path.display()))
    }

    /// The commit of a branch, a tag or any revision, if it is there.
    pub fn find(&self, revision: &str) -> Option<String> {
        let revision = format!("{revision}^{{commit}}");
        let mut command = self.command(&["rev-parse", "-q", "--verify", &revision]);
        let output = run(&mut command, b"");
        output.status.success().then(|| text(&output.stdout))
    }

    /// What the git program prints about this repository.
    ///
    /// # Panics
    /// It fails.
    pub fn git(&self, arguments: &[&str]) -> String {
        self.feed(arguments, b"")
    }

    /// The same with something to read.
    ///
    /// # Panics
    /// It fails.
    pub fn feed(&self, arguments: &[&str], input: &[u8]) -> String {
        self.done(&mut self.command(arguments), input)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.runner.command(&self.git);
        command
            .arg("-C")
            .arg(&self.path)
            // The commits are never looked at by a maintenance in the background.
            .args(["-c", "gc.auto=0", "-c", "maintenance.auto=false"])
            .args(arguments);
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "Upstream")
                .env(format!("GIT_{who}_EMAIL"), "upstream@example.com")
                .env(format!("GIT_{who}_DATE"), "2026-01-01T00:00:00Z");
        }
        command
    }

    fn done(&self, command: &mut Command, input: &[u8]) -> String {
        let output = run(command, input);
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        text(&output.stdout)
    }
}

fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("git");
    let mut stdin = child.stdin.take().expect("a pipe");
    // Nobody here prints before it has read everything.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("git ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}
