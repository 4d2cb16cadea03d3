//! The identity and the version of the database format.

/// The format that this version writes, kept in the database's `user_version`.
pub const FORMAT_VERSION: i32 = 1;

/// "evro": distinguishes a store from other SQLite databases.
pub(super) const APPLICATION_ID: i32 = 0x6576_726F;
