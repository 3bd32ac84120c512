//! Upstreams by gix: no program for HTTP and `git://`, one `ssh` for ssh, one `git upload-pack` for paths.

use super::connectivity;
use super::host_keys;
use super::http::Capabilities;
use super::progress::Reporter;
use super::quarantine::Quarantine;
use super::session::Session;
use super::watch::{Meter, Watch};
use super::{Advertisement, FetchReport, GitTransport, RemoteRef, asked_for, push};
use crate::{
    Control, HostEnv, Limits, Phase, Progress, PushError, TransportError, Upstream, layout,
};
use gix::ObjectId;
use gix::bstr::{BString, ByteSlice};
use gix::error::{ResultExt, message};
use gix::odb::pack;
use gix::odb::store::RefreshMode;
use gix::protocol::fetch::{
    Arguments, Options, RefMap, Response, Shallow, Tags, negotiate, refmap,
};
use gix::protocol::handshake::Ref;
use gix::protocol::ls_refs::RefPrefixes;
use gix::protocol::{Handshake, LsRefsCommand};
use std::io::{BufRead, Read};
use std::ops::DerefMut;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::rc::Rc;

/// Two million refs.
const LIST_LIMIT: u64 = 128 * 1024 * 1024;
/// A single object, or the table of a pack's objects, that needs more memory than this is refused.
const ALLOCATION_LIMIT: usize = 2 * 1024 * 1024 * 1024;
/// Threads that resolve one pack.
const THREADS: usize = 4;

/// gix.
#[derive(Clone)]
pub struct GixTransport {
    env: HostEnv,
    capabilities: Capabilities,
}

impl std::fmt::Debug for GixTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GixTransport")
            .field("env", &self.env)
            .finish_non_exhaustive()
    }
}

impl Default for GixTransport {
    fn default() -> Self {
        Self::new(HostEnv::from_process())
    }
}

impl GixTransport {
    /// Children start from `env`. Clones share what they know of servers.
    pub fn new(env: HostEnv) -> Self {
        Self {
            env,
            capabilities: Capabilities::default(),
        }
    }

    /// A connection and what it lists.
    fn open_and_list(
        &self,
        upstream: &Upstream,
        prefixes: &[&str],
        limits: &Limits,
        watch: &Rc<Watch>,
    ) -> Result<(Session, Listing), TransportError> {
        let remembered = Some(self.capabilities.clone());
        let mut session = Session::open(&self.env, upstream, limits, watch, remembered)?;
        match list(&mut session, prefixes) {
            // What we remembered of the server may be out of date.
            Err(_) if session.from_memory && watch.stopped().is_none() => {
                drop(session);
                self.capabilities.forget(&upstream.url.without_userinfo());
                let mut session = Session::open(&self.env, upstream, limits, watch, None)?;
                let listing = list(&mut session, prefixes)?;
                Ok((session, listing))
            }
            listing => Ok((session, listing?)),
        }
    }

    /// The same with silence believed only when it is heard twice.
    fn advertisement(
        &self,
        upstream: &Upstream,
        prefixes: &[&str],
        limits: &Limits,
        watch: &Rc<Watch>,
    ) -> Result<(Session, Advertisement), TransportError> {
        let (mut session, mut listing) = self.open_and_list(upstream, prefixes, limits, watch)?;
        let mut empty_confirmed = false;
        if listing.refs.is_empty() {
            empty_confirmed = listing.told_empty;
            if !empty_confirmed {
                session.close();
                (session, listing) = self.open_and_list(upstream, prefixes, limits, watch)?;
                empty_confirmed = listing.refs.is_empty();
            }
        }
        let advertisement = Advertisement {
            refs: listing.refs,
            head: listing.head,
            empty_confirmed,
        };
        Ok((session, advertisement))
    }
}

/// Takes what `wants` need from a connection into the repository.
fn receive_into(
    repository: &Path,
    mut session: Session,
    wants: &[RemoteRef],
    watch: &Rc<Watch>,
) -> Result<FetchReport, TransportError> {
    let damaged = |error: gix::Error| {
        TransportError::storage(&format!("{}: {error:#}", repository.display()))
    };
    let options = gix::open::Options::isolated().config_overrides([layout::AS_IT_IS]);
    let repo = gix::open_opts(repository, options).map_err(damaged)?;
    let quarantine = Quarantine::new(repository)?;
    let bytes = receive(&mut session, &repo, &quarantine, wants, watch)?;
    session.close();
    connectivity::check(&quarantine, wants, watch)?;
    let objects = quarantine.objects()?;
    if let Some(reason) = watch.stopped() {
        return Err(reason);
    }
    quarantine.admit()?;
    Ok(FetchReport { objects, bytes })
}

impl GitTransport for GixTransport {
    fn ls_refs(
        &self,
        upstream: &Upstream,
        prefixes: &[&str],
        limits: &Limits,
        control: &Control,
    ) -> Result<Advertisement, TransportError> {
        let watch = Rc::new(Watch::start(control, limits.ls_refs, None)?);
        watch.at_most(LIST_LIMIT);
        let _contact = host_keys::Contact::begin(upstream, control)?;
        guarded(|| {
            let (session, advertisement) =
                self.advertisement(upstream, prefixes, limits, &watch)?;
            session.close();
            Ok(advertisement)
        })
    }

    fn ls_refs_and_fetch(
        &self,
        repository: &Path,
        upstream: &Upstream,
        prefixes: &[&str],
        choose: &mut dyn FnMut(&Advertisement) -> Vec<RemoteRef>,
        limits: &Limits,
        control: &Control,
    ) -> Result<(Advertisement, FetchReport), TransportError> {
        let watch = Rc::new(Watch::start(control, limits.ls_refs, None)?);
        watch.at_most(LIST_LIMIT);
        let contact = host_keys::Contact::begin(upstream, control)?;
        guarded(|| {
            let (session, advertisement) =
                self.advertisement(upstream, prefixes, limits, &watch)?;
            // The rest may take hours.
            contact.as_ref().inspect(|contact| contact.look());
            let wants = choose(&advertisement);
            let report = if wants.is_empty() {
                session.close();
                FetchReport::default()
            } else {
                watch.next_part(limits.total, Some(limits.inactivity));
                receive_into(repository, session, &wants, &watch)?
            };
            Ok((advertisement, report))
        })
    }

    fn fetch(
        &self,
        repository: &Path,
        upstream: &Upstream,
        wants: &[RemoteRef],
        limits: &Limits,
        control: &Control,
    ) -> Result<FetchReport, TransportError> {
        if wants.is_empty() {
            return Ok(FetchReport::default());
        }
        let watch = Rc::new(Watch::start(
            control,
            limits.total,
            Some(limits.inactivity),
        )?);
        let _contact = host_keys::Contact::begin(upstream, control)?;
        guarded(|| {
            let session = Session::open(&self.env, upstream, limits, &watch, None)?;
            receive_into(repository, session, wants, &watch)
        })
    }

    fn push(
        &self,
        repository: &Path,
        upstream: &Upstream,
        commit: ObjectId,
        to: &str,
        lease: Option<ObjectId>,
        limits: &Limits,
        control: &Control,
    ) -> Result<(), PushError> {
        push::push(
            &self.env, repository, upstream, commit, to, lease, limits, control,
        )
    }
}

/// A server that makes gix panic has not made us panic.
fn guarded<T>(call: impl FnOnce() -> Result<T, TransportError>) -> Result<T, TransportError> {
    std::panic::catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(TransportError::protocol("its answer makes no sense")))
}

struct Listing {
    refs: Vec<RemoteRef>,
    head: Option<String>,
    /// The server said that nothing is there, rather than nothing.
    told_empty: bool,
}

fn agent() -> (&'static str, Option<String>) {
    (
        "agent",
        Some(gix::protocol::agent(concat!(
            "terokd/",
            env!("CARGO_PKG_VERSION")
        ))),
    )
}

fn list(session: &mut Session, prefixes: &[&str]) -> Result<Listing, TransportError> {
    let (advertised, told) = match session.handshake.refs.take() {
        // Older protocols list everything at once, and an empty list is an answer.
        Some(refs) => (refs, true),
        None => {
            let filter = (!prefixes.is_empty()).then(|| {
                let mut filter = RefPrefixes::new();
                filter.extend(
                    prefixes
                        .iter()
                        .chain(&["HEAD"])
                        .map(|prefix| BString::from(*prefix)),
                );
                filter
            });
            let Handshake { capabilities, .. } = &session.handshake;
            let result = LsRefsCommand::new(filter, capabilities, agent()).invoke_blocking(
                &mut session.transport,
                &mut gix::progress::Discard,
                false,
            );
            match result {
                Ok(refs) => (refs, false),
                Err(error) => return Err(session.explain(&error)),
            }
        }
    };
    let mut listing = Listing {
        refs: Vec::with_capacity(advertised.len()),
        head: None,
        told_empty: told,
    };
    for reference in advertised {
        let (name, id, peeled) = match reference {
            Ref::Direct {
                full_ref_name,
                object,
            } => (full_ref_name, object, None),
            Ref::Peeled {
                full_ref_name,
                tag,
                object,
            } => (full_ref_name, tag, Some(object)),
            Ref::Symbolic {
                full_ref_name,
                target,
                tag,
                object,
            } => {
                if full_ref_name == "HEAD" {
                    listing.head = target.to_str().ok().map(str::to_owned);
                }
                (full_ref_name, tag.unwrap_or(object), tag.map(|_| object))
            }
            Ref::Unborn {
                full_ref_name,
                target,
            } => {
                if full_ref_name == "HEAD" {
                    listing.head = target.to_str().ok().map(str::to_owned);
                    listing.told_empty = true;
                }
                continue;
            }
        };
        // A name that is no UTF-8 is no branch of ours.
        if let Ok(name) = name.to_str()
            && name != "HEAD"
            && asked_for(name, prefixes)
        {
            listing.refs.push(RemoteRef {
                name: name.to_owned(),
                id,
                peeled,
            });
        }
    }
    listing.refs.sort();
    listing.refs.dedup_by(|a, b| a.name == b.name);
    Ok(listing)
}

/// Gets the pack with everything that `wants` need; returns its size.
fn receive(
    session: &mut Session,
    repo: &gix::Repository,
    quarantine: &Quarantine,
    wants: &[RemoteRef],
    watch: &Rc<Watch>,
) -> Result<u64, TransportError> {
    let broken = |error: gix::Error| TransportError::storage(&format!("{error:#}"));
    let quiet = {
        let mut repo = repo.clone();
        // Asking for what is not there must not make the object database look for new packs each time.
        repo.objects.refresh = RefreshMode::Never;
        repo.objects.unset_object_cache();
        repo
    };
    let cache = quiet.commit_graph_if_enabled().ok().flatten();
    let mut graph = quiet.revision_graph(cache.as_ref());
    let ref_map = ref_map(wants, repo.object_hash());
    let mut negotiation = Negotiation {
        objects: &quiet.objects,
        refs: &quiet.refs,
        graph: &mut graph,
        ref_map: &ref_map,
        negotiator: gix::negotiate::Algorithm::Consecutive.into_negotiator(),
    };
    let meter = watch.meter();
    let mut received = 0;
    watch.meter().control().progress(Progress {
        phase: Phase::Negotiating,
        objects: 0,
        total: None,
        bytes: 0,
    });
    let shallow_file = repo.shallow_file().map_err(broken)?;
    let result = gix::protocol::fetch(
        &mut negotiation,
        |reader, progress, interrupt| {
            meter.expect_pace();
            let mut counted = Counted {
                inner: reader,
                bytes: 0,
                meter: meter.clone(),
            };
            pack::Bundle::write_to_directory(
                &mut counted,
                Some(&quarantine.packs()),
                progress,
                interrupt,
                Some(repo.objects.clone()),
                repo.object_hash(),
                pack::bundle::write::Options {
                    thread_limit: Some(THREADS),
                    alloc_limit_bytes: Some(ALLOCATION_LIMIT),
                    ..Default::default()
                },
            )
            .or_raise(|| message("cannot take the pack"))?;
            received = counted.bytes;
            Ok(true)
        },
        Reporter::new(watch.meter()),
        watch.flag(),
        gix::protocol::fetch::Context {
            handshake: &mut session.handshake,
            transport: &mut session.transport,
            user_agent: agent(),
            trace_packetlines: false,
        },
        Options {
            shallow_file,
            shallow: &Shallow::NoChange,
            tags: Tags::None,
            reject_shallow_remote: true,
        },
    );
    match result {
        Ok(_) => Ok(received),
        Err(error) => Err(session.explain(&error)),
    }
}

/// The wants as gix's negotiation has them: ids without a place to go.
fn ref_map(wants: &[RemoteRef], object_hash: gix::hash::Kind) -> RefMap {
    let mut ids: Vec<ObjectId> = wants.iter().map(|want| want.id).collect();
    ids.sort_unstable();
    ids.dedup();
    RefMap {
        mappings: ids
            .into_iter()
            .map(|id| refmap::Mapping {
                remote: refmap::Source::ObjectId(id),
                local: None,
                spec_index: refmap::SpecIndex::ExplicitInRemote(0),
            })
            .collect(),
        object_hash,
        ..Default::default()
    }
}

struct Negotiation<'a, 'b, 'c> {
    objects: &'a gix::OdbHandle,
    refs: &'a gix::refs::file::Store,
    graph: &'a mut gix::negotiate::Graph<'b, 'c>,
    ref_map: &'a RefMap,
    negotiator: Box<dyn gix::negotiate::Negotiator>,
}

impl gix::protocol::fetch::Negotiate for Negotiation<'_, '_, '_> {
    fn mark_complete_and_common_ref(&mut self) -> gix::error::Result<negotiate::Action> {
        negotiate::mark_complete_and_common_ref(
            self.objects,
            self.refs,
            || Ok(std::iter::empty::<(gix::refs::file::Store, gix::OdbHandle)>()),
            self.negotiator.deref_mut(),
            self.graph,
            self.ref_map,
            &Shallow::NoChange,
            |_| false,
        )
    }

    fn add_wants(&mut self, arguments: &mut Arguments, known: &[bool]) -> bool {
        negotiate::add_wants(
            self.objects,
            arguments,
            self.ref_map,
            known,
            &Shallow::NoChange,
            |_| false,
        )
    }

    fn one_round(
        &mut self,
        state: &mut negotiate::one_round::State,
        arguments: &mut Arguments,
        previous: Option<&Response>,
    ) -> gix::error::Result<(negotiate::Round, bool)> {
        negotiate::one_round(
            self.negotiator.deref_mut(),
            self.graph,
            state,
            arguments,
            previous,
        )
    }
}

/// The pack as it comes in.
struct Counted<'a> {
    inner: &'a mut dyn BufRead,
    bytes: u64,
    meter: Meter,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.meter.check()?;
        let n = self.inner.read(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

impl BufRead for Counted<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        self.meter.check()?;
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.bytes += amount as u64;
        self.inner.consume(amount);
    }
}
