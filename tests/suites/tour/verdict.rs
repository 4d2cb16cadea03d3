//! Judges a step's outcome at the milestone that the product has reached.

use super::milestone::Milestone;

/// The judgement of a step's outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It had to pass and did.
    Passed,
    /// It had to pass and did not.
    Failed(String),
    /// It belongs to a later milestone and does not work yet.
    Expected(String),
    /// It belongs to a later milestone and works: the milestone has to be advanced, or the step proves nothing.
    Early,
}

/// Judges one step.
pub fn judge(milestone: Milestone, current: Milestone, outcome: Result<(), String>) -> Judgement {
    match outcome {
        Ok(()) if milestone <= current => Judgement::Passed,
        Ok(()) => Judgement::Early,
        Err(reason) if milestone <= current => Judgement::Failed(reason),
        Err(reason) => Judgement::Expected(reason),
    }
}

#[test]
fn later_steps_must_fail_and_earlier_ones_must_pass() {
    use Milestone::{M2, M3, M4};
    let broken = || Err("x".to_owned());
    assert_eq!(judge(M2, M3, Ok(())), Judgement::Passed);
    assert_eq!(judge(M3, M3, Ok(())), Judgement::Passed);
    assert_eq!(judge(M4, M3, Ok(())), Judgement::Early);
    assert_eq!(judge(M3, M3, broken()), Judgement::Failed("x".into()));
    assert_eq!(judge(M4, M3, broken()), Judgement::Expected("x".into()));
}
