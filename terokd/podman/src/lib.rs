//! Podman over its socket: images, builds, containers.
//!
//! Owns how Podman is found, asked and not waited for. Knows nothing of projects and configuration.
//!
//! ```no_run
//! # async fn example() -> Result<(), terok_proto::Fault> {
//! use terok_podman::{BuildItem, BuildRequest, Context, Podman, Settings};
//!
//! let settings = Settings::new("/run/user/1000/terok/podman", Some("/run/user/1000".as_ref()), false)
//!     .with_program("/usr/bin/podman");
//! let podman = Podman::new(settings); // cheap to clone, connects when asked
//!
//! let listening = podman.clone();
//! tokio::spawn(async move { listening.watch().await }); // once, so that lists can be remembered
//!
//! let images = podman.images().await?; // podman_unavailable, podman_timeout or podman_error
//! if images.by_tag("localhost/terok-l0:ubuntu-24.04").is_none() {
//!     let mut request = BuildRequest::new(Context::files([("Dockerfile", b"FROM scratch".as_slice(), false)]));
//!     request.tags = vec!["localhost/terok-l0:ubuntu-24.04".into()];
//!     let mut build = podman.build(request).await?; // dropping it ends the build
//!     while let Some(item) = build.next().await? {
//!         match item {
//!             BuildItem::Step { number, total, .. } => println!("{number} of {total}"),
//!             BuildItem::Log(line) => println!("{line}"),
//!             BuildItem::Done(built) => println!("{} cached: {}", built.image_id, built.cached),
//!         }
//!     }
//! }
//! # Ok(()) }
//! ```

#![forbid(unsafe_code)]

mod build;
mod cache;
mod client;
mod connect;
mod container;
mod events;
mod fault;
mod frames;
mod http;
mod image;
mod query;
mod relay;
mod settings;
mod value;
mod watch;

pub use build::{BuildItem, BuildNetwork, BuildRequest, BuildStream, Built, Context, Pull};
pub use client::{Info, Podman};
pub use container::{Container, ContainerSize, ContainerSpec, ContainerState, Containers, Network};
pub use image::{HistoryEntry, Image, ImageUsage, Images, Removed};
pub use settings::{Deadlines, Limits, Settings, socket_of_url};
