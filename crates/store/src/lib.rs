//! Revisioned key-value store with watch, behind one contract.
//!
//! - [`contract`]: the trait [`Store`] and its types, modelled on etcd.
//! - [`error`]: what can go wrong.

pub mod contract;
pub mod error;

pub use contract::{
    Batch, Change, Condition, Event, KeyRange, KeyValue, Lease, LeaseId, Limits, Operation,
    Previous, RangePage, RangeRequest, Result, Revision, Store, Txn, TxnOutcome, WatchRequest,
    WatchStream,
};
pub use error::StoreError;
