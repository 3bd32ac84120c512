//! What a gate looks like on disk: its place, its configuration, its modes, and how it comes into being.

use crate::GateUrl;
use gix::bstr::ByteSlice;
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
}

impl GateSpec {
    /// The directory that the gate is in.
    pub(crate) fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
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
    write(&dir.join("config"), config_text(url).as_bytes())?;
    open(dir)
}

/// The whole configuration of a gate. Nothing in it runs anything.
fn config_text(url: Option<&GateUrl>) -> String {
    let mut text = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = true\n\tlogAllRefUpdates = always\n\
                    [transfer]\n\thideRefs = refs/terok\n[receive]\n\tfsckObjects = true\n[uploadpack]\n\tallowFilter = true\n\
                    [gc]\n\tauto = 0\n\treflogExpire = never\n\treflogExpireUnreachable = never\n"
        .to_owned();
    if let Some(url) = url {
        let url = url
            .without_password()
            .replace('\\', "\\\\")
            .replace('"', "\\\"");
        text.push_str(&format!(
            "[remote \"origin\"]\n\turl = \"{url}\"\n\tfetch = +refs/heads/*:refs/terok/upstream/*\n"
        ));
    }
    text
}

/// Brings the configuration to what it has to be; true if it was a mirror of the reference.
pub(crate) fn align_config(
    repository: &gix::Repository,
    url: Option<&GateUrl>,
) -> Result<bool, Fault> {
    let path = repository.git_dir().join("config");
    let before = fs::read(&path).map_err(|error| Fault::io("read", &path, &error))?;
    let wanted = config_text(url);
    if before == wanted.as_bytes() {
        return Ok(false);
    }
    let mirror = repository
        .config_snapshot()
        .boolean("remote.origin.mirror")
        .unwrap_or(false);
    let temporary = path.with_extension("terok-new");
    write(&temporary, wanted.as_bytes())?;
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
    written.map_err(|error| Fault::io("write", path, &error))
}

/// Makes everything below a new repository private, whatever the umask was.
pub(crate) fn tighten(dir: &Path) -> Result<(), Fault> {
    let entries = fs::read_dir(dir).map_err(|error| Fault::io("read", dir, &error))?;
    for entry in entries.flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        match kind {
            Ok(kind) if kind.is_dir() => {
                fs::set_permissions(&path, Permissions::from_mode(0o700))
                    .map_err(|error| Fault::io("change the mode of", &path, &error))?;
                tighten(&path)?;
            }
            Ok(kind) if kind.is_file() => {
                let read_only = entry.metadata().is_ok_and(|meta| meta.mode_is_read_only());
                let mode = if read_only { 0o400 } else { 0o600 };
                fs::set_permissions(&path, Permissions::from_mode(mode))
                    .map_err(|error| Fault::io("change the mode of", &path, &error))?;
            }
            _ => {}
        }
    }
    Ok(())
}

trait ReadOnly {
    fn mode_is_read_only(&self) -> bool;
}

impl ReadOnly for fs::Metadata {
    fn mode_is_read_only(&self) -> bool {
        self.permissions().mode() & 0o222 == 0
    }
}

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
        return Err(Fault::new(
            Kind::GateMissing,
            format!(
                "there is no gate at `{}` yet; sync it first",
                path.display()
            ),
        )
        .with("path", path.to_string_lossy()));
    }
    if !looks_like_bare_gate(path) {
        return Err(corrupt("it holds no bare git repository".to_owned()));
    }
    // Files of hostile content are read with limits of their own; a blob beyond this counts as binary.
    let options = gix::open::Options::isolated()
        .open_path_as_is(true)
        .with(gix::sec::Trust::Full)
        .config_overrides([
            "core.bigFileThreshold=8m",
            "core.filesRefLockTimeout=2000",
            "core.packedRefsTimeout=2000",
        ]);
    let mut repository =
        gix::open_opts(path, options).map_err(|error| corrupt(format!("{error:#}")))?;
    if repository.object_hash() != gix::hash::Kind::Sha1 {
        return Err(corrupt("it does not use SHA-1".to_owned()));
    }
    repository.object_cache_size_if_unset(4 << 20);
    Ok(repository)
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
