//! One integration binary over the finished product.
//!
//! `tour` is the first hour of a new user, with the clients that a user has; `byhand` shows that the machine and the images can do
//! what the product asks of them; `clients` is the API as programs see it that others wrote. They run one after the other: guests and containers share the machine's cores with the tests.

mod byhand;
mod clients;
mod sim;
mod tour;
