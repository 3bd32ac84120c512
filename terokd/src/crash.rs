//! Named points where a debug build can be made to die, so that tests prove what a `kill -9` there leaves behind, or
//! to wait, so that tests can act in between.

/// Aborts the process if `TEROKD_CRASH_AT` names this point. If `TEROKD_HOLD_AT` does, waits until somebody has written
/// to the pipe `TEROKD_HOLD_PIPE`, as long as there is one. Does nothing in a release build.
pub fn point(name: &str) {
    #[cfg(debug_assertions)]
    {
        use std::sync::OnceLock;
        static CRASH_AT: OnceLock<Option<String>> = OnceLock::new();
        static HOLD_AT: OnceLock<Option<(String, String)>> = OnceLock::new();
        let wanted = CRASH_AT.get_or_init(|| std::env::var("TEROKD_CRASH_AT").ok());
        if wanted.as_deref() == Some(name) {
            std::process::abort();
        }
        let hold = HOLD_AT.get_or_init(|| {
            let point = std::env::var("TEROKD_HOLD_AT").ok()?;
            Some((point, std::env::var("TEROKD_HOLD_PIPE").ok()?))
        });
        if let Some((point, pipe)) = hold
            && point == name
        {
            // Without a pipe nobody wants to wait any more.
            let _ = std::fs::read(pipe);
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
