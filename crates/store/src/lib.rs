//! Revisioned key-value store with watch, behind one contract.
//!
//! - [`contract`]: the trait [`Store`] and its types, modelled on etcd.
//! - [`embedded`]: the backend in a folder of this machine. [`etcd`]: the backend in an etcd cluster.
//! - [`compaction`]: continuous compaction of history. [`copy`]: copying one store into another.
//! - [`MeasuredStore`]: a store that measures another.
//! - [`clock`]: time as an argument. [`error`]: errors.

pub mod clock;
pub mod compaction;
pub mod contract;
#[cfg(feature = "contract-tests")]
pub mod contract_tests;
pub mod copy;
pub mod embedded;
pub mod error;
pub mod etcd;
mod limits;
mod measured;
mod queue;

pub use contract::{
    Batch, Change, Condition, Event, KeyRange, KeyValue, Lease, LeaseId, Limits, Operation, Previous, RangePage,
    RangeRequest, Result, Revision, Store, Txn, TxnOutcome, WatchRequest, WatchStream,
};
pub use embedded::EmbeddedStore;
pub use error::StoreError;
pub use etcd::EtcdStore;
pub use measured::MeasuredStore;
