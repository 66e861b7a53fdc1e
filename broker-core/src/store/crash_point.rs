//! Named places where a test lets the process die, to see that it starts again.
//!
//! With the feature `crash-points`, `BROKER_CRASH_POINT=name` kills the process (SIGKILL) the first time it gets there, `name:3` the third time.
//! Without the feature nothing of this is compiled.

/// A place where the process may be told to die.
macro_rules! crash_point {
    ($name:literal) => {
        $crate::store::crash_point::reached($name)
    };
}
pub(crate) use crash_point;

/// The process is at the place of this name.
#[cfg(feature = "crash-points")]
pub(crate) fn reached(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static ARMED: OnceLock<Option<(String, AtomicU64)>> = OnceLock::new();
    let armed = ARMED.get_or_init(|| {
        let value = std::env::var("BROKER_CRASH_POINT").ok()?;
        let (name, times) = value.split_once(':').unwrap_or((&value, "1"));
        Some((name.to_owned(), AtomicU64::new(times.parse().unwrap_or(1))))
    });
    let Some((_, left)) = armed.as_ref().filter(|(armed, _)| armed == name) else { return };
    if left.fetch_sub(1, Ordering::Relaxed) == 1 {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

/// The process is at the place of this name.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub(crate) fn reached(_name: &str) {}
