//! Sends one sequence to one server.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};

use super::bodies::KINDS;
use super::normal::normalise;
use super::{Seen, Sequence, Step};
use crate::client::{Answer, Client, Events};

/// Objects that are created at the end, so that every watch of the generator receives an event that marks it.
const END: &str = "zz-end";

/// Labels `app`, and which of two values the selectable fields have.
const ENDS: [(&str, bool); 6] = [("a", false), ("a", true), ("b", false), ("b", true), ("", false), ("", true)];

/// The values that the server has returned so far and later steps refer to.
#[derive(Default)]
struct Known {
    values: HashMap<String, String>,
}

/// Sends all steps to a server in the given namespace and returns the answers, normalised.
///
/// # Errors
/// If a connection fails: a server that refuses answers, and that is no error.
pub async fn play(client: &Client, sequence: &Sequence, namespace: &str) -> Result<Vec<Seen>> {
    let mut known = Known::default();
    known.values.insert("@ns".into(), namespace.into());
    let mut seen = Vec::new();
    let mut watches: Vec<(usize, Events)> = Vec::new();
    let mut needed: BTreeSet<&str> = BTreeSet::new();
    for step in &sequence.steps {
        let path = known.fill(&step.path);
        if may_show_the_past(step) {
            // An answer out of a cache is one of several right ones, until the cache was made to catch up.
            let all = path.split(['?']).next().unwrap_or_default();
            client.send(Method::GET, all.trim_end_matches("/a"), "application/json", "").await?;
        }
        if step.method == "WATCH" {
            match client.watch(&path, accept(step)).await? {
                Ok(events) => {
                    needed.extend(KINDS.iter().map(|it| it.0).filter(|plural| path.contains(&format!("/{plural}?"))));
                    watches.push((seen.len(), events));
                    seen.push(Seen { code: 200, warnings: vec![], media_type: String::new(), body: json!([]) });
                }
                Err(answer) => seen.push(view(answer)),
            }
            continue;
        }
        match client.respond(request(step, &path, &known)?).await {
            Ok(answer) => {
                known.learn(&answer.body);
                seen.push(view(answer));
            }
            // No answer is an answer that the other server does not give.
            Err(error) => seen.push(Seen {
                code: 0,
                warnings: vec![],
                media_type: String::new(),
                body: json!(error.root_cause().to_string()),
            }),
        }
    }
    let ends = needed.into_iter().map(|plural| mark_the_end(client, namespace, plural));
    futures::future::try_join_all(ends).await?;
    for (position, mut events) in watches {
        let mut all = Vec::new();
        loop {
            let event = match events.next().await {
                Ok(Some(event)) => event,
                Ok(None) => break,
                // The end never came: a lost event is a difference like any other.
                Err(error) => json!({"type": "LOST", "error": error.to_string()}),
            };
            if event["type"] == "LOST" {
                all.push(event);
                break;
            }
            let name = event.pointer("/object/metadata/name").or(event.pointer("/object/rows/0/object/metadata/name"));
            if name.and_then(Value::as_str).is_some_and(|it| it.starts_with(END)) {
                break;
            }
            let is_initial_end = event.pointer("/object/metadata/annotations").is_some();
            if event["type"] != "BOOKMARK" || is_initial_end {
                all.push(event);
            }
        }
        seen[position].body = Value::Array(all);
    }
    normalise(&mut seen, namespace);
    Ok(seen)
}

/// Whether the original answers from its cache, as far as that has come.
fn may_show_the_past(step: &Step) -> bool {
    let is_read = step.method == "WATCH" || step.method == "GET";
    is_read && (step.method == "WATCH" || step.path.contains("resourceVersion="))
}

/// One object for every combination of what selectors of the generator name.
async fn mark_the_end(client: &Client, namespace: &str, plural: &str) -> Result<()> {
    let kind = KINDS.iter().find(|it| it.0 == plural).map_or("", |it| it.1);
    let made = ENDS.into_iter().enumerate().map(|(index, (label, second))| async move {
        let labels = if label.is_empty() { json!({}) } else { json!({"app": label}) };
        let spec = match (plural, second) {
            ("disks", false) => json!({"sizeGb": 1}),
            ("disks", true) => json!({"sizeGb": 1, "class": "fast"}),
            ("gadgets", false) => json!({"level": 1}),
            ("gadgets", true) => json!({"level": 2, "owner": "bob"}),
            (_, false) => json!({"mode": "auto", "size": 1, "on": true}),
            (_, true) => json!({"mode": "manual", "size": 1, "on": true}),
        };
        let body = json!({
            "apiVersion": "test.example/v1", "kind": kind, "spec": spec,
            "metadata": {"name": format!("{END}-{index}"), "labels": labels},
        });
        let path = format!("/apis/test.example/v1/namespaces/{namespace}/{plural}");
        let made = client.send(Method::POST, &path, "application/json", body.to_string()).await?;
        anyhow::ensure!(made.code == 201, "the end of a watch is refused: {}", made.body);
        Ok(())
    });
    futures::future::try_join_all(made).await.map(|_| ())
}

fn accept(step: &Step) -> &str {
    if step.accept.is_empty() { "application/json" } else { &step.accept }
}

fn request(step: &Step, path: &str, known: &Known) -> Result<Request<Bytes>> {
    let method = Method::from_bytes(step.method.as_bytes()).context("read a step's method")?;
    let mut request = Request::builder().method(method).uri(path).header("user-agent", "suite/1");
    request = request.header("accept", accept(step));
    if !step.media_type.is_empty() {
        request = request.header("content-type", &step.media_type);
    }
    let body = match (&step.body, &step.text) {
        (Some(body), _) => known.fill(&body.to_string()),
        (None, Some(text)) => known.fill(text),
        (None, None) => String::new(),
    };
    request.body(body.into()).with_context(|| format!("make a request for {path}"))
}

fn view(answer: Answer) -> Seen {
    let media_type = answer.header_values("content-type").join(", ");
    let warnings = answer.header_values("warning");
    let mut body = answer.body;
    if media_type.contains("yaml")
        && let Some(document) = body.as_str().and_then(|text| serde_saphyr::from_str::<Value>(text).ok())
    {
        // The same document can be written in many ways.
        body = document;
    }
    Seen { code: answer.code, warnings, media_type, body }
}

impl Known {
    /// Replaces placeholders of the server's own values; an unknown one stays, and is bad input for both.
    fn fill(&self, text: &str) -> String {
        // The namespace first: it is a part of names.
        let mut text = text.replace("@ns", self.values.get("@ns").map_or("@ns", String::as_str));
        for (name, value) in &self.values {
            text = text.replace(name.as_str(), value);
        }
        text
    }

    fn learn(&mut self, body: &Value) {
        let metadata = &body["metadata"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        if let (Some(name), Some(uid)) = (text(&metadata["name"]), text(&metadata["uid"])) {
            self.values.insert(format!("@uid({name})"), uid);
            if let Some(revision) = text(&metadata["resourceVersion"]) {
                self.values.insert(format!("@rv({name})"), revision);
            }
        }
        if body["items"].is_array() {
            if let Some(revision) = text(&metadata["resourceVersion"]) {
                self.values.insert("@rv(list)".into(), revision);
            }
            if let Some(token) = text(&metadata["continue"]).filter(|it| !it.is_empty()) {
                self.values.insert("@continue".into(), token);
            }
        }
    }
}
