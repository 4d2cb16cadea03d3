//! Claims: what must be unique is written, compared and released in the same store transaction as the object.

/// One thing that at most one object may hold at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The key of the claim, unique in the whole cloud, for example `disk/demo/hello`.
    pub key: String,
    /// The field that makes the claim, for example `spec.diskRefs[0].name`.
    pub field: String,
    /// The claimed thing, for the refusal: `disk "hello"`.
    pub what: String,
    /// The party that chose it, and so has to choose again when another object holds it.
    pub chosen_by: ChosenBy,
}

/// The party that chose what an object claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChosenBy {
    /// The user: the object is invalid as it is.
    User,
    /// The platform: a conflict, after which it looks again.
    Platform,
}
