//! Revisioned key-value store with watch, behind one contract.
