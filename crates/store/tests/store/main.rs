//! The embedded backend: the contract, a model to compare with, crashes, damage.

mod contract;
