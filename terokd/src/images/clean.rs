//! Listing images and removing those that nobody needs. Every removal is decided anew from what Podman has now.

use super::{Images, known_images};
use crate::ops::OpCx;
use futures_util::{StreamExt, stream};
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use terok_config::selection;
use terok_image::classify::{Image, Listed, Plan, Projects, Store, Wanted};
use terok_image::manifest::Manifest;
use terok_image::{base, tags};
use terok_proto::image::{CleanupResult, ImageInfo};
use terok_proto::ops::Progress;
use terok_proto::{Fault, Kind};

/// Histories that are asked for at a time.
const AT_A_TIME: usize = 8;

/// What Podman has, and what is known around it.
struct Known {
    images: Vec<Image>,
    projects: Projects,
    built: BTreeSet<String>,
}

impl Known {
    fn store(&self) -> Store<'_> {
        Store {
            images: &self.images,
            projects: &self.projects,
            built: &self.built,
        }
    }
}

/// The images of an overview.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Base layers and unnamed images of terok's.
    pub global: Vec<ImageInfo>,
    /// Base layers that nothing needs.
    pub unused_base: Vec<ImageInfo>,
    /// Images of projects, known or not.
    pub of_projects: Vec<ImageInfo>,
}

impl Images {
    /// Every image of terok's under each of its names, or those that concern one project.
    ///
    /// # Errors
    /// Podman cannot be asked.
    pub async fn list(&self, project: Option<&str>) -> Result<Vec<ImageInfo>, Fault> {
        let images = known_images(&*self.podman()?.images().await?);
        Ok(infos(bare(&images).list(project)))
    }

    /// The images of one project.
    ///
    /// # Errors
    /// Podman cannot be asked.
    pub async fn of_project(&self, project: &str) -> Result<Vec<ImageInfo>, Fault> {
        let images = known_images(&*self.podman()?.images().await?);
        Ok(infos(bare(&images).of_project(project)))
    }

    /// What nobody needs any more.
    ///
    /// # Errors
    /// Podman cannot be asked.
    pub async fn orphaned(&self) -> Result<Vec<ImageInfo>, Fault> {
        let known = self.known(true).await?;
        Ok(infos(known.store().orphaned()))
    }

    /// All that an overview of the disk shows.
    ///
    /// # Errors
    /// Podman cannot be asked.
    pub async fn overview(&self) -> Result<Overview, Fault> {
        let known = self.known(false).await?;
        let needed = self.needed().await?;
        let store = known.store();
        let mut of_projects = store.list(None);
        of_projects.retain(|listed| listed.name.is_some_and(|name| name.project().is_some()));
        Ok(Overview {
            global: infos(store.global()),
            unused_base: infos(store.unused_base_images(&needed)),
            of_projects: infos(of_projects),
        })
    }

    /// Removes images that the rules let go: orphans, and base layers that nothing needs. Never one that a container
    /// uses; one that cannot be removed does not keep the others.
    ///
    /// # Errors
    /// An entry means no image, or Podman cannot be asked.
    pub async fn remove(
        &self,
        cx: &OpCx,
        images: &[Value],
        dry_run: bool,
    ) -> Result<CleanupResult, Fault> {
        let wanted = images
            .iter()
            .map(Wanted::parse)
            .collect::<Result<Vec<_>, _>>()?;
        if dry_run {
            return Ok(CleanupResult {
                removed: wanted.into_iter().map(|wanted| wanted.shown).collect(),
                failed: Vec::new(),
                dry_run,
            });
        }
        self.refuse_while_panicked("removing images")?;
        let needed = self.needed().await?;
        self.carry_out(cx, |store| store.plan_removal(&wanted, Some(&needed)))
            .await
    }

    /// Removes all orphans.
    ///
    /// # Errors
    /// Podman cannot be asked.
    pub async fn clean_up(&self, cx: &OpCx, dry_run: bool) -> Result<CleanupResult, Fault> {
        if dry_run {
            let known = self.known(true).await?;
            let plan = known.store().plan_cleanup();
            return Ok(CleanupResult {
                removed: plan
                    .removals
                    .into_iter()
                    .flat_map(|r| r.full_names)
                    .collect(),
                failed: Vec::new(),
                dry_run,
            });
        }
        self.refuse_while_panicked("removing images")?;
        self.carry_out(cx, |store| store.plan_cleanup()).await
    }

    /// Removes the images of one project, which goes. Answers what stays, with the reason.
    ///
    /// # Errors
    /// Podman cannot be asked.
    pub async fn drop_project(&self, project: &str) -> Result<Dropped, Fault> {
        let podman = self.podman()?;
        let mut dropped = Dropped::default();
        for name in [tags::l2(project), tags::l2_dev(project)] {
            let name = tags::local(&name);
            match podman.remove_image(&name).await {
                Ok(None) => {}
                Ok(Some(_)) => dropped.removed.push(name),
                Err(fault) if is_about_podman(&fault) => return Err(fault),
                Err(fault) => dropped.kept.push((name, fault.message)),
            }
        }
        self.inner.contexts.forget(project);
        Ok(dropped)
    }

    /// Plans and removes until a plan from what is there now brings nothing new: what was hidden below goes as well.
    async fn carry_out(
        &self,
        cx: &OpCx,
        plan: impl Fn(&Store<'_>) -> Plan,
    ) -> Result<CleanupResult, Fault> {
        let podman = self.podman()?;
        let (mut result, mut tried) = (CleanupResult::default(), BTreeSet::new());
        let mut is_first = true;
        loop {
            let known = self.known(true).await?;
            let Plan { removals, refused } = plan(&known.store());
            // What is gone by now was refused for that reason.
            if is_first {
                result.failed.extend(refused);
            }
            is_first = false;
            let mut progress = false;
            for removal in removals {
                // A name is tried once; an image without one may be free the second time.
                let key = (removal.id.clone(), removal.names.clone());
                if !tried.insert(key) {
                    continue;
                }
                cx.check_cancelled()?;
                cx.progress(Progress {
                    phase: "removing".to_owned(),
                    message: removal.full_names.first().cloned(),
                    done: Some(result.removed.len() as u64),
                    ..Progress::default()
                });
                let targets = if removal.names.is_empty() {
                    vec![removal.id.clone()]
                } else {
                    removal.names.clone()
                };
                for (target, shown) in targets.iter().zip(&removal.full_names) {
                    match podman.remove_image(target).await {
                        Ok(Some(_)) => {
                            progress = true;
                            result.failed.retain(|name| name != shown);
                            result.removed.push(shown.clone());
                        }
                        // Somebody else was faster.
                        Ok(None) => result.removed.push(shown.clone()),
                        Err(fault) if fault.kind == Kind::PodmanUnavailable => return Err(fault),
                        Err(fault) => {
                            cx.log("stderr", &format!("{shown}: {}", fault.message));
                            if !result.failed.contains(shown) {
                                result.failed.push(shown.clone());
                            }
                        }
                    }
                }
            }
            if !progress {
                break;
            }
            // What stood in the way may be gone.
            tried.retain(|(_, names)| !names.is_empty());
        }
        self.forget_gone().await;
        Ok(result)
    }

    /// Everything that the rules look at; `fresh` asks Podman now.
    async fn known(&self, fresh: bool) -> Result<Known, Fault> {
        let podman = self.podman()?;
        let images = if fresh {
            podman.images_now().await?
        } else {
            podman.images().await?
        };
        let mut known = Known {
            images: known_images(&images),
            projects: self.projects(),
            built: self.inner.records.ids().await?,
        };
        let wanting: Vec<String> = {
            let store = known.store();
            known
                .images
                .iter()
                .filter(|image| image.needs_history(&store))
                .map(|image| image.id.clone())
                .collect()
        };
        let histories = self.histories(wanting).await?;
        for image in &mut known.images {
            if let Some(history) = histories.get(&image.id) {
                image.history = history.to_vec();
            }
        }
        Ok(known)
    }

    /// Histories of images, a few at a time, each asked for once.
    async fn histories(
        &self,
        ids: Vec<String>,
    ) -> Result<HashMap<String, Arc<Vec<String>>>, Fault> {
        let podman = self.podman()?;
        let kept = || {
            self.inner
                .histories
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let mut found: HashMap<String, Arc<Vec<String>>> = {
            let mut all = kept();
            all.retain(|id, _| ids.contains(id));
            all.clone()
        };
        let missing: Vec<String> = ids
            .into_iter()
            .filter(|id| !found.contains_key(id))
            .collect();
        let asked = stream::iter(missing).map(|id| async move {
            let hex = id.strip_prefix("sha256:").unwrap_or(&id);
            let history = podman.image_history(hex).await?;
            let lines = history
                .unwrap_or_default()
                .into_iter()
                .flat_map(|entry| [entry.comment, entry.created_by])
                .collect();
            Ok::<_, Fault>((id, Arc::new(lines)))
        });
        let mut asked = asked.buffer_unordered(AT_A_TIME);
        while let Some(answer) = asked.next().await {
            let (id, lines) = answer?;
            kept().insert(id.clone(), Arc::clone(&lines));
            found.insert(id, lines);
        }
        Ok(found)
    }

    /// All projects that have a directory, broken ones included; unknown if a directory of theirs cannot be read.
    fn projects(&self) -> Projects {
        let snapshot = self.inner.registry.snapshot();
        let mut names = BTreeSet::new();
        for dir in snapshot.paths.projects_dirs() {
            match directories(dir) {
                Ok(found) => names.extend(found),
                Err(error) => {
                    tracing::warn!(path = %dir.display(), %error, "projects cannot be read: no image counts as an orphan");
                    return Projects::Unknown;
                }
            }
        }
        for (dir, entry) in &snapshot.projects {
            names.extend([dir.clone(), entry.id().to_owned()]);
        }
        Projects::Known(names)
    }

    /// Names of the base layers that a manifest, a configuration or the default alias mentions.
    async fn needed(&self) -> Result<BTreeSet<String>, Fault> {
        let snapshot = self.inner.registry.snapshot();
        super::blocking(move || {
            let roster = &snapshot.roster;
            let mut needed = BTreeSet::new();
            let global = &snapshot.global.config.image.base_image;
            needed.insert(tags::l1_alias(base::normalise(global)));
            for entry in snapshot.projects.values() {
                // Of a broken project what it last was; its manifest counts as well.
                if let Some(good) = entry.good() {
                    let config = &good.project.config;
                    let base = base::normalise(&config.base_image);
                    needed.insert(tags::l0(base));
                    if let Ok(selected) = selection::resolve_text(&config.agents, roster) {
                        needed.insert(tags::l1(base, &selected.names));
                    }
                }
                let dir = snapshot.paths.build_dir.join(entry.id());
                let manifest = Manifest::read(&dir.join(terok_image::manifest::FILE));
                needed.extend(manifest.iter().flat_map(Manifest::tags).map(str::to_owned));
            }
            Ok(needed)
        })
        .await
    }

    fn refuse_while_panicked(&self, what: &str) -> Result<(), Fault> {
        crate::panic::refuse_while_panicked(&self.inner.registry.snapshot().paths, what)
    }
}

/// What became of a project's images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Names that are gone.
    pub removed: Vec<String>,
    /// Names that stay, with the reason.
    pub kept: Vec<(String, String)>,
}

/// Names in a directory that are, or lead to, directories. What is inside may be out of reach, or away for a moment:
/// that is no reason to give up what was built from it.
fn directories(dir: &Path) -> std::io::Result<BTreeSet<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        entries => entries?,
    };
    let mut names = BTreeSet::new();
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

/// Whether it is no use to go on asking.
fn is_about_podman(fault: &Fault) -> bool {
    matches!(fault.kind, Kind::PodmanUnavailable | Kind::PodmanTimeout)
}

/// A store of which nothing is asked but names.
fn bare(images: &[Image]) -> Store<'_> {
    static NOBODY: BTreeSet<String> = BTreeSet::new();
    Store {
        images,
        projects: &Projects::Unknown,
        built: &NOBODY,
    }
}

fn infos(listed: Vec<Listed<'_>>) -> Vec<ImageInfo> {
    let now = jiff::Timestamp::now();
    listed.into_iter().map(|listed| listed.info(now)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_looked_into_is_there_nevertheless() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir(at("empty")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", at("unmounted")).unwrap();
        let names: Vec<String> = directories(root.path()).unwrap().into_iter().collect();
        assert_eq!(names, ["empty", "unmounted"]);
        assert!(directories(&at("missing")).unwrap().is_empty());
        assert!(directories(&at("file")).is_err());
    }
}
