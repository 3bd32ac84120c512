//! What a gate looks like on disk: its place, its configuration, and how it comes into being.
//!
//! Beside what git has in a bare repository: `terok-fetched`, whose age is that of the snapshot; `terok-repacked`, whose age
//! is the time since everything was packed anew; `terok-locks`, while refs change. A gate works without any of them.

use crate::GateUrl;
use gix::bstr::ByteSlice;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use terok_proto::{Fault, Kind};

/// One gate, as its project's configuration has it.
#[derive(Clone, Debug)]
pub struct GateSpec {
    /// The repository, symbolic links resolved.
    pub path: PathBuf,
    /// Where gates are; holds the pinned host keys.
    pub base: PathBuf,
    /// Upstream, if there is one.
    pub upstream_url: Option<GateUrl>,
    /// `git.default_branch`.
    pub default_branch: Option<String>,
    /// Clone that seeds new tasks, if one is wanted.
    pub cache_dir: Option<PathBuf>,
    /// `PATH` of the git programs that work inside the gate.
    pub search_path: OsString,
}

impl GateSpec {
    /// The directory that the gate is in.
    pub(crate) fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// Whether it is where gates are.
    pub(crate) fn is_in_base(&self) -> bool {
        let base = self.base.canonicalize();
        base.is_ok_and(|base| base == self.parent())
    }

    /// Something beside the gate that is not there yet.
    pub(crate) fn beside(&self, what: &str) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let mut random = [0_u8; 8];
        // A name that is taken makes creating the directory fail, which is all that matters.
        let _ = fs::File::open("/dev/urandom")
            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut random));
        let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        self.parent().join(format!(".{name}.{what}-{random}"))
    }
}

/// Makes a directory and those above it, with mode 0700 where it makes them.
pub(crate) fn private_dir(dir: &Path) -> Result<(), Fault> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| Fault::io("create the directory", dir, &error))
}

/// Makes an empty bare repository that nobody else can see yet.
pub(crate) fn create(
    dir: &Path,
    head: &str,
    url: Option<&GateUrl>,
) -> Result<gix::Repository, Fault> {
    DirBuilder::new()
        .mode(0o700)
        .create(dir)
        .map_err(|error| Fault::io("create the directory", dir, &error))?;
    for part in [
        "objects/info",
        "objects/pack",
        "refs/heads",
        "refs/tags",
        "info",
        "hooks",
    ] {
        let part = dir.join(part);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&part)
            .map_err(|error| Fault::io("create the directory", &part, &error))?;
    }
    write(&dir.join("HEAD"), format!("ref: {head}\n").as_bytes())?;
    write(&dir.join("config"), &config_text(url)?)?;
    open(dir)
}

/// What a gate's configuration has to say; a section, a key, a value.
const SETTINGS: &[(&str, &str, &str)] = &[
    ("core", "bare", "true"),
    ("core", "logAllRefUpdates", "always"),
    ("transfer", "hideRefs", "refs/terok"),
    ("receive", "fsckObjects", "true"),
    ("uploadpack", "allowFilter", "true"),
    ("gc", "auto", "0"),
    // The logs of backups say why they were made.
    ("gc", "reflogExpire", "never"),
    ("gc", "reflogExpireUnreachable", "never"),
];

/// The configuration of a new gate. Nothing in it runs anything.
fn config_text(url: Option<&GateUrl>) -> Result<Vec<u8>, Fault> {
    let base = b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n";
    aligned(base, url, false)
        .ok_or_else(|| Fault::internal("a gate's configuration cannot be written"))
}

/// A configuration with what a gate's has to say; all else in it stays.
fn aligned(text: &[u8], url: Option<&GateUrl>, stays_mirror: bool) -> Option<Vec<u8>> {
    let meta = gix::config::file::Metadata::from(gix::config::Source::Local);
    let options = gix::config::file::init::Options::default();
    let mut file = gix::config::File::from_bytes_no_includes(text, meta, options).ok()?;
    for (section, key, value) in SETTINGS {
        set_only(&mut file, section, None, key, Some(value))?;
    }
    set_only(&mut file, "core", None, "sharedRepository", None)?;
    let url = url.map(GateUrl::without_password);
    let fetch = url.as_ref().map(|_| "+refs/heads/*:refs/terok/upstream/*");
    set_only(&mut file, "remote", Some("origin"), "url", url.as_deref())?;
    set_only(&mut file, "remote", Some("origin"), "fetch", fetch)?;
    if !stays_mirror {
        set_only(&mut file, "remote", Some("origin"), "mirror", None)?;
    }
    Some(file.to_bstring().into())
}

/// Makes `value` the only one of a key, or removes all of them.
fn set_only(
    file: &mut gix::config::File,
    section: &str,
    subsection: Option<&str>,
    key: &str,
    value: Option<&str>,
) -> Option<()> {
    let (mut ids, mut values) = (Vec::new(), Vec::new());
    for (found, id) in file.sections_and_ids_by_name(section).into_iter().flatten() {
        let name = found.header().subsection_name();
        if name.map(|name| name.to_vec()) == subsection.map(|name| name.as_bytes().to_vec()) {
            values.extend(found.values(key));
            ids.push(id);
        }
    }
    let as_wanted = match (values.as_slice(), value) {
        ([], None) => true,
        ([only], Some(value)) => *only == value,
        _ => false,
    };
    if as_wanted {
        return Some(());
    }
    for id in &ids {
        let mut found = file.section_mut_by_id(*id)?;
        while found.remove(key).is_some() {}
    }
    if let Some(value) = value {
        let mut found = match ids.first() {
            Some(id) => file.section_mut_by_id(*id)?,
            None => {
                let subsection = subsection.map(gix::bstr::BString::from);
                file.new_section(section, subsection).ok()?
            }
        };
        found.push(key, value).ok()?;
    }
    Some(())
}

/// Brings the configuration to what it has to be; true if it is a mirror of the reference. Until the mirror has become a
/// gate, the key that tells it stays, so that a sync that fails half way is continued by the next one.
pub(crate) fn align_config(
    repository: &gix::Repository,
    url: Option<&GateUrl>,
    stays_mirror: bool,
) -> Result<bool, Fault> {
    let path = repository.git_dir().join("config");
    let before = fs::read(&path).map_err(|error| Fault::io("read", &path, &error))?;
    let wanted = aligned(&before, url, stays_mirror).ok_or_else(|| {
        Fault::new(
            Kind::GateCorrupt,
            format!("`{}` is no configuration of git's", path.display()),
        )
    })?;
    let mirror = repository
        .config_snapshot()
        .boolean("remote.origin.mirror")
        .unwrap_or(false);
    if before == wanted {
        return Ok(mirror);
    }
    let temporary = path.with_extension("terok-new");
    write(&temporary, &wanted)?;
    fs::rename(&temporary, &path).map_err(|error| Fault::io("replace", &path, &error))?;
    Ok(mirror)
}

/// A private file, on the disk when this returns.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    let written = fs::File::create(path).and_then(|mut file| {
        file.set_permissions(Permissions::from_mode(0o600))?;
        std::io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    });
    written.map_err(|error| {
        // Half a file is worse than none; if it cannot be removed either, the first failure is the one to tell.
        let _ = fs::remove_file(path);
        Fault::io("write", path, &error)
    })
}

/// Objects are what their names say, whatever `refs/replace` has in their place: it may be an agent's.
pub(crate) const AS_IT_IS: &str = "core.useReplaceRefs=false";

/// Opens a gate as a bare repository that listens to nobody's configuration but its own.
pub(crate) fn open(path: &Path) -> Result<gix::Repository, Fault> {
    let corrupt = |why: String| {
        Fault::new(
            Kind::GateCorrupt,
            format!(
                "`{}` is not a gate: {why}; build it anew with `force_reinit` if nothing in it is needed",
                path.display()
            ),
        )
        .with("path", path.to_string_lossy())
    };
    if !path.is_dir() {
        return Err(missing(path));
    }
    if !looks_like_bare_gate(path) {
        return Err(corrupt("it holds no bare git repository".to_owned()));
    }
    // Files of hostile content are read with limits of their own; a blob beyond this counts as binary.
    let options = gix::open::Options::isolated()
        .open_path_as_is(true)
        .with(gix::sec::Trust::Full)
        .config_overrides(["core.bigFileThreshold=8m", AS_IT_IS]);
    let mut repository =
        gix::open_opts(path, options).map_err(|error| corrupt(format!("{error:#}")))?;
    if repository.object_hash() != gix::hash::Kind::Sha1 {
        return Err(corrupt("it does not use SHA-1".to_owned()));
    }
    repository.object_cache_size_if_unset(4 << 20);
    Ok(repository)
}

fn missing(path: &Path) -> Fault {
    Fault::new(
        Kind::GateMissing,
        format!(
            "there is no gate at `{}` yet; sync it first",
            path.display()
        ),
    )
    .with("path", path.to_string_lossy())
}

/// Refuses to wait for a gate that nobody made yet.
pub(crate) fn must_exist(spec: &GateSpec) -> Result<(), Fault> {
    if spec.path.is_dir() {
        Ok(())
    } else {
        Err(missing(&spec.path))
    }
}

/// Whether a directory has what every bare repository has.
pub fn looks_like_bare_gate(path: &Path) -> bool {
    let is_file = |name: &str| {
        path.join(name)
            .symlink_metadata()
            .is_ok_and(|meta| meta.is_file())
    };
    let is_dir = |name: &str| {
        path.join(name)
            .symlink_metadata()
            .is_ok_and(|meta| meta.is_dir())
    };
    is_file("HEAD") && is_file("config") && is_dir("objects") && is_dir("refs")
}

/// A branch name that git takes: what `git check-ref-format --branch` takes, without globs, `refs/` or `HEAD`.
///
/// # Errors
/// `invalid_argument`
pub fn check_branch(name: &str) -> Result<(), Fault> {
    let full = format!("refs/heads/{name}");
    let valid = !name.is_empty()
        && name.len() <= 250
        && !name.starts_with("refs/")
        && !name.starts_with('-')
        && name != "HEAD"
        && !name.contains(['*', '?', '['])
        && gix::refs::FullName::try_from(full.as_bytes().as_bstr()).is_ok();
    if valid {
        return Ok(());
    }
    Err(Fault::invalid_argument(format!(
        "`{name}` is no branch name; give the name alone, such as `main` or `topic/fix`"
    )))
}
