//! Tables: given what is observed, these steps and this status.
