//! All controllers, each with an identity of its own.

use std::sync::Arc;

use evroc_controller::{Clock, Context, Informers};
use evroc_network::ForgetGroup;
use evroc_placement::Book;
use evroc_run::image::Images;
use evroc_run::{RunContext, Settings};
use kube::Client;

/// The settings of the controllers.
#[derive(Clone)]
pub struct Controllers {
    /// The time.
    pub clock: Clock,
    /// The operator's choices for services.
    pub settings: Settings,
    /// The registry that images are resolved in.
    pub images: Arc<dyn Images>,
    /// Removes a resource group's data outside the API.
    pub forget: Arc<dyn ForgetGroup>,
}

impl Controllers {
    /// Runs all controllers until the future is dropped; `client` makes the API client of the controller with that name.
    pub async fn run(self, client: impl Fn(&str) -> Client) {
        let context = |name: &str| Context { client: client(name), clock: self.clock.clone() };
        // One watch of each kind for all of them; its identity may read and nothing else.
        let informers = Informers::new(client("informers"));
        let book = Book::new(&informers);
        let run = RunContext {
            base: context("run"),
            settings: self.settings.clone(),
            images: self.images.clone(),
            informers: informers.clone(),
            book: book.clone(),
        };
        tokio::join!(
            evroc_compute::run(context("compute"), &informers, book),
            evroc_network::run(context("network"), &informers, self.forget.clone()),
            evroc_run::run(run)
        );
    }
}
