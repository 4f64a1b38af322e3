/// Whether servers may be asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// They are.
    Network,
    /// Nobody is: what is kept must do.
    KeptOnly,
}
