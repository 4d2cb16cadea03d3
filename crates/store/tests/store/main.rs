//! The backends: the contract, a model to compare with, crashes, damage, and what only one of them has.

mod contract;
mod copy;
mod crash;
mod damage;
mod etcd;
mod files;
mod linear;
mod load;
mod model;
mod owner;
mod power;
mod support;
