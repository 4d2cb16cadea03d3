//! Assertions after a line of the tour, and the checks behind the scenes.

pub mod api;
pub mod guests;
pub mod inputs;
pub mod kills;
pub mod kubectls;
pub mod processes;
pub mod run;
pub mod start;
pub mod stop;
