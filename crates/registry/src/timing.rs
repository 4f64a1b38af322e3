//! Time and chance, as parameters.

use std::fmt::Debug;
use std::time::Duration;

/// What the client asks of the world besides the network. The program gives the real ones, tests give ones that do not wait.
pub trait Timing: Debug + Send + Sync {
    /// The time since some fixed moment, by a clock that never jumps.
    fn now(&self) -> Duration;

    /// Waits. It may return early when the program is being cancelled; [`crate::Client::cancel`] then makes the client give up.
    fn sleep(&self, duration: Duration);

    /// A random number of at least 0 and below 1.
    fn jitter(&self) -> f64;
}
