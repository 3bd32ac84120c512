//! Ids of operations: they rise with time, and nobody can guess the next one.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes ids. Each is greater than all before it, also across restarts and when the clock goes back.
#[derive(Debug)]
pub(super) struct Ids {
    last_ms: AtomicU64,
}

impl Ids {
    /// Goes on after the greatest id so far.
    pub(super) fn after(greatest: Option<&str>) -> Self {
        let last = greatest
            .and_then(|id| u64::from_str_radix(id.get(..12)?, 16).ok())
            .unwrap_or(0);
        Self {
            last_ms: AtomicU64::new(last),
        }
    }

    /// The next id: 12 hex digits of milliseconds, 16 of chance.
    pub(super) fn next(&self) -> String {
        let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
        let before = self.last_ms.fetch_max(now, Ordering::Relaxed);
        let ms = if now > before {
            now
        } else {
            self.last_ms.fetch_add(1, Ordering::Relaxed) + 1
        };
        // A hasher that the system's random source has keyed: enough against guessing.
        let chance = RandomState::new().hash_one(ms);
        format!("{ms:012x}-{chance:016x}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_rise_even_when_the_clock_does_not() {
        let ids = Ids::after(None);
        let made: Vec<String> = (0..1000).map(|_| ids.next()).collect();
        assert!(made.is_sorted_by(|a, b| a < b));
        // A clock that was once far ahead.
        let ids = Ids::after(Some("7fffffffffff-0000000000000000"));
        assert!(ids.next().as_str() > "7fffffffffff-ffffffffffffffff");
        assert!(Ids::after(Some("é")).next().starts_with("01"));
    }
}
