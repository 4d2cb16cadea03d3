//! The embedded backend: the contract, a model to compare with, crashes, damage.

mod contract;
mod crash;
mod damage;
mod files;
mod load;
mod model;
mod support;
