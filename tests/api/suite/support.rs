//! A namespace of its own for each test, and requests that expect nothing.

use std::sync::atomic::{AtomicU32, Ordering};

use evroc_api_suite::client::{Answer, Client, Events};
use evroc_api_suite::server::{Server, make_namespace};
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// One for all tests; it ends with this process, whose end it sees at its input.
static SERVER: OnceCell<Server> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A namespace that only one test uses.
pub struct Space {
    pub client: Client,
    pub namespace: String,
    pub is_original: bool,
}

/// The server under test.
pub async fn server() -> &'static Server {
    SERVER.get_or_init(|| async { Server::from_environment().await.unwrap() }).await
}

impl Space {
    pub async fn new() -> Self {
        Self::at(server().await).await
    }

    /// In a server of one's own.
    pub async fn at(server: &Server) -> Self {
        let client = server.client().await.unwrap();
        let namespace = format!("suite-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        if !server.is_original {
            make_namespace(&client, &namespace).await.unwrap();
        }
        Space { client, namespace, is_original: server.is_original }
    }

    /// The path of a kind in the namespace.
    pub fn path(&self, plural: &str) -> String {
        format!("/apis/test.example/v1/namespaces/{}/{plural}", self.namespace)
    }

    /// The path of disks, with what follows it.
    pub fn disks(&self, rest: &str) -> String {
        format!("{}{rest}", self.path("disks"))
    }

    pub fn widgets(&self, rest: &str) -> String {
        format!("{}{rest}", self.path("widgets"))
    }

    pub async fn send(&self, method: Method, path: &str, media_type: &str, body: impl Into<bytes::Bytes>) -> Answer {
        self.client.send(method, path, media_type, body).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, "application/json", "").await
    }

    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        let request = Request::get(path).header("accept", accept).body(Default::default()).unwrap();
        self.client.respond(request).await.unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, "application/json", body.to_string()).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, "application/json", body.to_string()).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, "application/merge-patch+json", body.to_string()).await
    }

    pub async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, "application/json-patch+json", body.to_string()).await
    }

    pub async fn apply(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, "application/apply-patch+yaml", body.to_string()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, "application/json", "").await
    }

    /// Creates and expects success.
    pub async fn create(&self, path: &str, body: &Value) -> Value {
        let made = self.post(path, body).await;
        assert_eq!(made.code, 201, "{}", made.body);
        made.body
    }

    /// Opens a watch and expects success.
    pub async fn watch(&self, path: &str) -> Watch {
        Watch(self.client.watch(path, "application/json").await.unwrap().unwrap_or_else(|answer| panic!("{answer:?}")))
    }

    /// Creates disks `d00`, `d01`, … with labels `parity`; the one with number 3 is fast.
    pub async fn with_disks(count: u32) -> Self {
        let space = Self::new().await;
        for number in 0..count {
            let mut wanted = disk(&format!("d{number:02}"), number + 1);
            wanted["metadata"]["labels"] = json!({"parity": if number % 2 == 0 { "even" } else { "odd" }});
            if number == 3 {
                wanted["spec"]["class"] = json!("fast");
            }
            space.create(&space.disks(""), &wanted).await;
        }
        space
    }
}

pub struct Watch(Events);

impl Watch {
    /// The next event.
    pub async fn next(&mut self) -> Option<Value> {
        self.0.next().await.unwrap()
    }

    /// `TYPE name` of the next event.
    pub async fn brief(&mut self) -> String {
        let event = self.next().await.expect("another event");
        let name = event["object"]["metadata"]["name"].as_str().unwrap_or("-").to_owned();
        format!("{} {name}", event["type"].as_str().unwrap())
    }
}

pub fn disk(name: &str, size: u32) -> Value {
    json!({"apiVersion": "test.example/v1", "kind": "Disk", "metadata": {"name": name}, "spec": {"sizeGb": size}})
}

pub fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "test.example/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

/// Names of a list's items.
pub fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|it| it["metadata"]["name"].as_str().unwrap()).collect()
}

/// The fields that a refusal names.
pub fn causes(refused: &Value) -> Vec<&str> {
    let causes = refused["details"]["causes"].as_array();
    causes.into_iter().flatten().map(|it| it["field"].as_str().unwrap_or_default()).collect()
}
