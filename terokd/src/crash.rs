//! Named points where a debug build can be made to die, so that tests prove what a `kill -9` there leaves behind.

/// Aborts the process if `TEROKD_CRASH_AT` names this point. Does nothing in a release build.
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    {
        static WANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
        let wanted = WANTED.get_or_init(|| std::env::var("TEROKD_CRASH_AT").ok());
        if wanted.as_deref() == Some(name) {
            std::process::abort();
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
