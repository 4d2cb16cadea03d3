//! What has to be true after a line of the tour, and the looks behind the lines.

pub mod api;
pub mod guests;
pub mod inputs;
pub mod kills;
pub mod kubectls;
pub mod processes;
pub mod run;
pub mod start;
pub mod stop;
