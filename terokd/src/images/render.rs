//! From a project's configuration to what its images are built from.
//!
//! Rendering costs milliseconds and is asked for by every look at a project: contexts are kept for as long as nothing
//! they were made from has changed.

use crate::fs;
use crate::registry::{ProjectEntry, Snapshot};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use terok_config::env::Environment;
use terok_config::global::Global;
use terok_config::global::typed::NetworkKeys;
use terok_config::roster::Roster;
use terok_config::selection;
use terok_image::layers::{Context, Foundation, ProjectLayer, Rendered};
use terok_image::network::{CaBundle, Proxy};
use terok_image::snippet;
use terok_image::stage::Stage;
use terok_podman::BuildNetwork;
use terok_proto::config::{Family, SecurityClass};
use terok_proto::{Fault, Kind};

/// Longest bundle of certificates that is read.
const MAX_BUNDLE: u64 = 4 << 20;
/// Contexts that are kept.
const MAX_KEPT: usize = 4096;

/// A project whose images are asked about, as its configuration has it at this moment.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) entry: Arc<ProjectEntry>,
    pub(super) env: Arc<Environment>,
    /// A selection instead of the configured one.
    pub(super) agents: Option<String>,
}

/// A rendered project.
#[derive(Clone, Debug)]
pub(super) struct Render {
    pub(super) context: Arc<Context>,
    /// What is doubtful about the selection.
    pub(super) warnings: Vec<String>,
}

impl Subject {
    /// The id that everything is named after.
    pub(super) fn id(&self) -> &str {
        self.entry.id()
    }

    /// Where the build context and the manifest are.
    pub(super) fn stage(&self) -> Result<Stage, Fault> {
        let config = &self.entry.project()?.config;
        let staging = config.staging_root.as_deref().map(Path::new);
        Ok(Stage::new(
            &self.snapshot.paths.build_dir,
            &config.id,
            staging,
        ))
    }

    /// Files besides the configuration that the context is made from.
    fn files(&self) -> Vec<PathBuf> {
        let Ok(loaded) = self.entry.load().usable() else {
            return Vec::new();
        };
        let snippet = loaded.project.config.snippet_file.as_deref();
        let snippet = snippet.map(|file| snippet::path(file, &loaded.snippet_dir, &self.env.home));
        let bundle = ca_path(&self.snapshot.global.terokd.network, &self.env).ok();
        snippet.into_iter().chain(bundle.flatten()).collect()
    }

    /// What is to be built, and what the configuration has, which is what gets staged: a selection for one build is
    /// then told as a stale layer.
    pub(super) fn render_both(&self, kept: &Contexts) -> Result<(Render, Arc<Context>), Fault> {
        let render = self.render(kept)?;
        let configured = match &self.agents {
            None => Arc::clone(&render.context),
            Some(_) => {
                let configured = Self {
                    agents: None,
                    ..self.clone()
                };
                // A selection that cannot be resolved is no reason not to build another one.
                let other = configured.render(kept).map(|render| render.context);
                other.unwrap_or_else(|_| Arc::clone(&render.context))
            }
        };
        Ok((render, configured))
    }

    /// Renders everything. Reads files.
    pub(super) fn render(&self, kept: &Contexts) -> Result<Render, Fault> {
        let loaded = self.entry.load().usable()?;
        let config = &loaded.project.config;
        let roster = &self.snapshot.roster;
        let wanted = self.agents.as_deref().unwrap_or(&config.agents);
        let selected = selection::resolve_text(wanted, roster)?;
        let key = BaseKey {
            base: config.base_image.clone(),
            family: config.family,
            names: selected.names,
            ca: ca_bundle(&self.snapshot.global.terokd.network, &self.env)?,
        };
        let base = kept.base(key, roster)?;
        let file = config
            .snippet_file
            .as_deref()
            .map(|file| {
                let path = snippet::path(file, &loaded.snippet_dir, &self.env.home);
                snippet::read(&path, &config.id)
            })
            .transpose()?;
        let inline = config.snippet_inline.as_deref();
        let combined = snippet::combine(&config.id, file.as_deref(), inline)?;
        let layer = ProjectLayer::new(
            config.security_class == SecurityClass::Gatekeeping,
            config.upstream_url.as_deref(),
            config.default_branch.as_deref(),
            combined,
        )?;
        Ok(Render {
            context: Arc::new(Context::new(base, &layer)),
            warnings: selected.warnings,
        })
    }
}

/// What builds have to know of the network around the host.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    /// Variables of the proxy.
    pub(super) variables: std::collections::BTreeMap<String, String>,
    pub(super) network: BuildNetwork,
}

/// The network as the configuration has it. A proxy on the host's loopback can only be reached from its network.
pub(super) fn surroundings(keys: &NetworkKeys) -> Surroundings {
    let proxy = Proxy {
        http: keys.proxy.http.clone(),
        https: keys.proxy.https.clone(),
        no_proxy: keys.proxy.no_proxy.clone(),
    };
    let addresses = [&keys.proxy.http, &keys.proxy.https];
    let is_local = addresses
        .into_iter()
        .flatten()
        .any(|url| is_loopback(host_of(url)));
    Surroundings {
        variables: proxy.variables(),
        network: if is_local {
            BuildNetwork::Host
        } else {
            BuildNetwork::Private
        },
    }
}

/// The host in `http://user:password@host:port/`.
fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn ca_path(keys: &NetworkKeys, env: &Environment) -> Result<Option<PathBuf>, Fault> {
    let stated = keys
        .ca_bundle
        .as_deref()
        .filter(|path| !path.trim().is_empty());
    let resolve = |path: &str| {
        env.resolve(path).map_err(|error| {
            Fault::new(Kind::InvalidConfig, format!("`network.ca_bundle`: {error}"))
                .with("key", "network.ca_bundle")
        })
    };
    stated.map(resolve).transpose()
}

fn ca_bundle(keys: &NetworkKeys, env: &Environment) -> Result<Option<CaBundle>, Fault> {
    let Some(path) = ca_path(keys, env)? else {
        return Ok(None);
    };
    let invalid = |why: String| {
        Fault::new(Kind::InvalidConfig, format!("`network.ca_bundle`: {why}"))
            .with("key", "network.ca_bundle")
            .with("path", path.to_string_lossy())
    };
    let bytes = fs::read_limited(&path, MAX_BUNDLE).map_err(|fault| invalid(fault.message))?;
    CaBundle::parse(&String::from_utf8_lossy(&bytes)).map(Some)
}

/// What two projects have to agree on to share their lower layers.
#[derive(Clone, Debug, PartialEq)]
struct BaseKey {
    base: String,
    family: Option<Family>,
    names: Vec<String>,
    ca: Option<CaBundle>,
}

/// The version of a file, as far as its metadata tell.
type Version = Option<(u64, u64, i64, i64, i64, i64)>;

fn version(path: &Path) -> Version {
    let meta = std::fs::metadata(path).ok()?;
    Some((
        meta.ino(),
        meta.len(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
    ))
}

fn versions<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Vec<Version> {
    paths.into_iter().map(|path| version(path)).collect()
}

/// The lower layers of one key and roster.
type Base = (BaseKey, Weak<Roster>, Weak<Rendered>);

/// What was rendered.
#[derive(Debug, Default)]
pub(super) struct Contexts {
    kept: Mutex<HashMap<String, Arc<Kept>>>,
    bases: Mutex<Vec<Base>>,
}

#[derive(Debug)]
struct Kept {
    entry: Arc<ProjectEntry>,
    snapshot_parts: (Weak<Roster>, Weak<Global>),
    files: Vec<Version>,
    outcome: Result<Render, Fault>,
    /// Whether the stage was old, for these versions of its files.
    staged: Mutex<Option<(Vec<Version>, bool)>>,
}

impl Kept {
    fn holds(&self, subject: &Subject) -> bool {
        let (roster, global) = &self.snapshot_parts;
        Arc::ptr_eq(&self.entry, &subject.entry)
            && std::ptr::eq(roster.as_ptr(), Arc::as_ptr(&subject.snapshot.roster))
            && std::ptr::eq(global.as_ptr(), Arc::as_ptr(&subject.snapshot.global))
            && self.files == versions(&subject.files())
    }
}

impl Contexts {
    /// The context of a project with its configured selection, rendered only if something has changed.
    pub(super) fn of(&self, subject: &Subject) -> Result<Render, Fault> {
        self.look(subject).outcome.clone()
    }

    fn look(&self, subject: &Subject) -> Arc<Kept> {
        let known = self.kept().get(subject.id()).cloned();
        if let Some(known) = known.filter(|known| known.holds(subject)) {
            return known;
        }
        // Looked at before they are read: what changes meanwhile is rendered again.
        let files = versions(&subject.files());
        let kept = Arc::new(Kept {
            entry: Arc::clone(&subject.entry),
            snapshot_parts: (
                Arc::downgrade(&subject.snapshot.roster),
                Arc::downgrade(&subject.snapshot.global),
            ),
            files,
            outcome: subject.render(self),
            staged: Mutex::default(),
        });
        let mut all = self.kept();
        if all.len() >= MAX_KEPT {
            all.clear();
        }
        all.insert(subject.id().to_owned(), Arc::clone(&kept));
        kept
    }

    /// Whether what is staged differs from what would be rendered now.
    pub(super) fn is_old(&self, subject: &Subject, stage: &Stage) -> Result<bool, Fault> {
        let kept = self.look(subject);
        let render = kept.outcome.as_ref().map_err(Clone::clone)?;
        let paths: Vec<PathBuf> = render
            .context
            .files()
            .map(|(path, _)| stage.dir().join(path))
            .collect();
        let now = versions(&paths);
        let mut staged = kept.staged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((then, old)) = &*staged
            && *then == now
        {
            return Ok(*old);
        }
        let old = stage.is_old(&render.context);
        *staged = Some((now, old));
        Ok(old)
    }

    /// The lower layers, rendered once for all who stand on the same.
    fn base(&self, key: BaseKey, roster: &Arc<Roster>) -> Result<Arc<Rendered>, Fault> {
        {
            let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
            bases.retain(|(_, _, rendered)| rendered.strong_count() > 0);
            let known = bases.iter().find(|(known, of, _)| {
                *known == key && std::ptr::eq(of.as_ptr(), Arc::as_ptr(roster))
            });
            if let Some(rendered) = known.and_then(|(_, _, rendered)| rendered.upgrade()) {
                return Ok(rendered);
            }
        }
        let foundation =
            Foundation::new(&key.base, key.family, &key.names, roster, key.ca.clone())?;
        let rendered = Arc::new(Rendered::new(foundation));
        let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
        bases.push((key, Arc::downgrade(roster), Arc::downgrade(&rendered)));
        Ok(rendered)
    }

    /// Forgets a project.
    pub(super) fn forget(&self, id: &str) {
        self.kept().remove(id);
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, Arc<Kept>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_a_proxy() {
        for (url, host, loopback) in [
            ("http://proxy.example:3128", "proxy.example", false),
            ("http://user:p%40ss@127.0.0.1:3128/", "127.0.0.1", true),
            ("http://[::1]:3128", "::1", true),
            ("localhost:8080", "localhost", true),
            ("https://10.0.0.1", "10.0.0.1", false),
            ("http://127.evil.example", "127.evil.example", false),
            ("", "", false),
        ] {
            assert_eq!(host_of(url), host, "{url}");
            assert_eq!(is_loopback(host_of(url)), loopback, "{url}");
        }
    }
}
