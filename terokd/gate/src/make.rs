//! Making a gate: beside its place and then renamed there, so that it exists whole or not at all.

use crate::crash::point;
use crate::refs::{HEADS, Refs, TAGS, UPSTREAM};
use crate::sync::{Run, Trouble, lied};
use crate::{GateSpec, cache, layout, maintenance, modes, status, walk};
use gix::ObjectId;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use terok_proto::Fault;
use terok_proto::gate::{AppliedKind, AppliedUpdate};

impl Run<'_> {
    /// Makes the gate beside its place and renames it there, so that it exists whole or not at all.
    pub(crate) fn make(&mut self, there: bool) -> Result<(), Trouble> {
        layout::private_dir(self.spec.parent())?;
        self.limits.total = self.limits.first;
        let new = self.spec.beside("reinit");
        let made = self.fill(&new);
        if let Err(trouble) = made {
            remove(&new);
            return Err(trouble);
        }
        point("gate.sync.exchanging");
        if let Err(fault) = put_in_place(self.spec, &new, there) {
            remove(&new);
            return Err(fault.into());
        }
        point("gate.sync.exchanged");
        // After an exchange this is the old one.
        remove(&new);
        if there {
            cache::drop_cache(self.spec);
        }
        self.report.result.created = true;
        Ok(())
    }

    fn fill(&mut self, new: &Path) -> Result<(), Trouble> {
        let fallback = self
            .spec
            .default_branch
            .clone()
            .unwrap_or_else(|| "main".to_owned());
        let url = self.spec.upstream_url.as_ref();
        let Some(upstream) = self.upstream else {
            layout::create(new, &format!("{HEADS}{fallback}"), url)?;
            return Ok(());
        };
        let repository = layout::create(new, &format!("{HEADS}{fallback}"), url)?;
        point("gate.sync.made");
        let (_, remote, _) = self.ask_and_fetch(&repository, upstream, &Refs::default(), false)?;
        point("gate.sync.fetched");
        // Nobody sees this repository yet, so its refs can be written as one file.
        let repository = layout::open(repository.git_dir())?;
        let mut packed: BTreeMap<String, (ObjectId, Option<ObjectId>)> = BTreeMap::new();
        for (branch, id) in &remote.heads {
            if !walk::is_commit(&repository, *id) {
                return Err(lied(branch).into());
            }
            packed.insert(format!("{HEADS}{branch}"), (*id, None));
            packed.insert(format!("{UPSTREAM}{branch}"), (*id, None));
            self.report.result.applied.push(AppliedUpdate {
                branch: branch.clone(),
                kind: AppliedKind::Create,
                old: None,
                new: id.to_string(),
            });
        }
        for (tag, reference) in &remote.tags {
            // Peeled by ourselves: a lie in this file would be passed on to clones.
            if let Some(peeled) = walk::peeled(&repository, reference.id) {
                packed.insert(format!("{TAGS}{tag}"), (reference.id, peeled));
            }
        }
        let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
        for (name, (id, peeled)) in &packed {
            text.push_str(&format!("{id} {name}\n"));
            if let Some(peeled) = peeled {
                text.push_str(&format!("^{peeled}\n"));
            }
        }
        layout::write(&new.join("packed-refs"), text.as_bytes())?;
        self.note_refused(&remote);
        let repository = layout::open(repository.git_dir())?;
        let refs = Refs::read(&repository)?;
        self.align_head(&repository, &refs, Some(&remote))?;
        status::note_fetch(new);
        maintenance::begin(new);
        modes::tighten(new);
        if let Ok(dir) = fs::File::open(new) {
            // Where directories cannot be synced, the rename is all there is.
            let _ = dir.sync_all();
        }
        Ok(())
    }
}

/// Renames a new repository to its place; an old one that is there changes places with it.
fn put_in_place(spec: &GateSpec, new: &Path, there: bool) -> Result<(), Fault> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    let place = &spec.path;
    let flags = if there {
        RenameFlags::RENAME_EXCHANGE
    } else {
        RenameFlags::RENAME_NOREPLACE
    };
    match renameat2(AT_FDCWD, new, AT_FDCWD, place, flags) {
        Ok(()) => return Ok(()),
        Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOSYS) => {}
        Err(error) => return Err(Fault::io("put the gate at", place, &error.into())),
    }
    // This file system cannot do it in one step.
    let old = spec.beside("trash");
    if there {
        fs::rename(place, &old).map_err(|error| Fault::io("set aside", place, &error))?;
        point("gate.sync.aside");
    }
    if let Err(error) = fs::rename(new, place) {
        if there {
            // Better the old one than none.
            let _ = fs::rename(&old, place);
        }
        return Err(Fault::io("put the gate at", place, &error));
    }
    remove(&old);
    Ok(())
}

/// Removes what is no longer needed; what cannot be removed now is removed at the next start.
pub(crate) fn remove(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            if let Err(error) = fs::remove_file(dir) {
                tracing::debug!(dir = %dir.display(), %error, "cannot remove");
            }
            tracing::warn!(dir = %dir.display(), %error, "cannot remove");
        }
    }
}
