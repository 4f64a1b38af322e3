//! Time and chance, as parameters.

use std::fmt::Debug;
use std::time::Duration;

/// What the client asks of the world besides the network. The program gives the real ones, tests give ones that do not wait.
pub trait Timing: Debug + Send + Sync {
    /// The time since some fixed moment, by a clock that never jumps.
    fn now(&self) -> Duration;

    /// Waits, unless `is_over` says that nobody wants to any more, as it does after [`crate::Client::cancel`].
    fn sleep(&self, duration: Duration, is_over: &dyn Fn() -> bool);

    /// A random number of at least 0 and below 1.
    fn jitter(&self) -> f64;
}
