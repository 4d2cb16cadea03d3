//! Revisioned key-value store with watch, behind one contract.
//!
//! - [`contract`]: the trait [`Store`] and its types, modelled on etcd.
//! - [`embedded`]: the backend in a folder of this machine. [`etcd`]: the backend in an etcd cluster.
//! - [`compaction`]: continuous compaction of history. [`copy`]: copying one store into another.
//! - [`StoreLayer`]: a store around another one. [`MeasuredStore`]: one that measures it.
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
mod layer;
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
pub use layer::StoreLayer;
pub use measured::MeasuredStore;
