//! The new-project wizard: questions, answers and the file they make.
//!
//! Owns vocabulary, normalisation, judging and rendering, all without I/O of its own except a look for GPU
//! descriptions. Front ends only ask.

mod questions;
mod render;
mod slugify;
mod upstream;

pub use questions::{agents_question, gpu_unavailable, questions, validate_answer};
pub use render::render_project_yaml;
pub use slugify::slugify;
pub use upstream::upstream_warning;

/// Security classes with their labels, in the order of the menu.
pub const SECURITY_CLASSES: [(&str, &str); 2] = [
    ("online", "Online (agent pushes directly to upstream)"),
    (
        "gatekeeping",
        "Gatekeeping (changes staged for human review)",
    ),
];

/// Bases with their labels, by label.
pub const BASES: [(&str, &str); 4] = [
    ("fedora", "Fedora 44"),
    ("nvidia", "NVIDIA CUDA (GPU)"),
    ("podman", "Podman (Fedora-based)"),
    ("ubuntu", "Ubuntu 24.04"),
];

/// The image behind each base.
pub const BASE_IMAGES: [(&str, &str); 4] = [
    ("ubuntu", "ubuntu:24.04"),
    ("fedora", "fedora:44"),
    ("podman", "quay.io/podman/stable:latest"),
    (
        "nvidia",
        "nvcr.io/nvidia/nvhpc:25.9-devel-cuda13.0-ubuntu24.04",
    ),
];

/// Directories that hold CDI descriptions of a host's devices.
pub const CDI_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// The image of a base.
pub fn base_image(base: &str) -> Option<&'static str> {
    BASE_IMAGES
        .iter()
        .find(|(name, _)| *name == base)
        .map(|(_, image)| *image)
}
