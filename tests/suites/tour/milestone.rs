//! The milestone that the product has reached: the one place that states it.
//!
//! To advance: set [`CURRENT`], run `make test` (or `cargo xtask test --stage build --stage suites --filter tour`), and bring the
//! README up to date with `UPDATE=1`. A step of a later milestone that passes fails the run: then it is time.

/// The features that have to work from a milestone on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Milestone {
    /// The machine and the images meet the requirements of the product; shown by hand.
    M1,
    /// Store, certificates and API server, judged by kubectl.
    M2,
    /// Supervisor, roles and shim; restarts are taken over.
    M3,
    /// From a Disk to ssh in the guest.
    M4,
    /// From a push to the logs of a service that scaled to zero and back.
    M5,
    /// Every process killed at every line, and a second run.
    M6,
    /// A fresh machine: the README's lines, and no file outside a declared list afterwards.
    M7,
}

/// The milestone that the product has reached: its steps and all earlier ones pass, the later ones do not yet.
pub const CURRENT: Milestone = Milestone::M7;

/// Returns [`CURRENT`], or the value of `EVROC_TOUR_AT` (`M4`), to try a milestone with its full deadlines before it is reached.
pub fn current() -> Milestone {
    let tried = std::env::var("EVROC_TOUR_AT").unwrap_or_default();
    let all = [Milestone::M1, Milestone::M2, Milestone::M3, Milestone::M4, Milestone::M5, Milestone::M6, Milestone::M7];
    all.into_iter().find(|milestone| format!("{milestone:?}") == tried).unwrap_or(CURRENT)
}
