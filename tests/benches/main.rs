//! Measurements of the release build.
fn main() {}
