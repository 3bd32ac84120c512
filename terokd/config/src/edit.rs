//! edit
mod scalar;
pub use scalar::{double_quoted, scalar};
pub(crate) use scalar::is_printable;
