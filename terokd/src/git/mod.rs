//! Git as the daemon sees it. Knows nothing of projects.

pub mod identity;
