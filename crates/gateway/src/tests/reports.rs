//! The gateway's reports to the API, and their timing.

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::*;

/// Takes a status and an object.
type Answer = oneshot::Sender<(u16, Value)>;

/// An API that is played by hand: every request waits for its answer.
pub(super) struct Api {
    calls: mpsc::UnboundedReceiver<(Request<kube::client::Body>, Answer)>,
}

/// A request to the API, to be answered.
pub(super) struct Call {
    pub what: String,
    pub body: Value,
    answer: Answer,
}

impl Call {
    pub fn answer(self, status: u16, body: Value) {
        self.answer.send((status, body)).unwrap();
    }

    fn fail(self, status: u16, reason: &str) {
        let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": reason, "reason": reason, "code": status});
        self.answer(status, body);
    }
}

impl Api {
    pub fn new() -> (Self, kube::Client) {
        let (sender, calls) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (answer, answered) = oneshot::channel();
            let _ = sender.send((request, answer));
            async move {
                let (status, body) = answered.await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionReset))?;
                let body = kube::client::Body::from(serde_json::to_vec(&body).unwrap());
                Ok::<_, io::Error>(Response::builder().status(status).body(body).unwrap())
            }
        });
        (Self { calls }, kube::Client::new(service, "default"))
    }

    /// The next request, whenever it comes.
    pub async fn next(&mut self) -> Call {
        let (request, answer) = self.calls.recv().await.unwrap();
        let what = format!("{} {}", request.method(), request.uri().path());
        let body = request.into_body().collect_bytes().await.unwrap();
        Call { what, body: serde_json::from_slice(&body).unwrap_or_default(), answer }
    }

    pub async fn quiet(&mut self, time: Duration) {
        if let Ok(call) = time::timeout(time, self.next()).await {
            panic!("{} {}", call.what, call.body);
        }
    }

    /// The next report: waiting and in flight.
    async fn report(&mut self) -> (Call, i64, i64) {
        let call = self.next().await;
        assert_eq!(call.what, "PATCH /apis/run.evroclabs.net/v1alpha1/namespaces/demo/revisions/a-1/status");
        let load = &call.body["status"]["load"];
        assert!(load["lastRequestTime"].is_string(), "{load}");
        let (waiting, in_flight) = (load["waiting"].as_i64().unwrap(), load["inFlight"].as_i64().unwrap());
        (call, waiting, in_flight)
    }

    /// Accepts the next report, which must be this one.
    async fn hears(&mut self, waiting: i64, in_flight: i64) {
        let (call, w, f) = self.report().await;
        assert_eq!((w, f), (waiting, in_flight));
        call.answer(200, revision(w, f));
    }
}

fn revision(waiting: i64, in_flight: i64) -> Value {
    json!({"apiVersion": "run.evroclabs.net/v1alpha1", "kind": "Revision", "metadata": {"name": "a-1", "namespace": "demo"},
        "spec": {"service": "a", "serviceGeneration": 1, "container": {"image": "registry.x/demo/a:1"}},
        "status": {"load": {"waiting": waiting, "inFlight": in_flight}}})
}

fn revisions(items: Vec<Value>) -> Value {
    json!({"apiVersion": "run.evroclabs.net/v1alpha1", "kind": "RevisionList", "metadata": {}, "items": items})
}

/// A reporter that found these revisions.
async fn reporter(found: Vec<Value>) -> (Api, Arc<Table>) {
    let (mut api, client) = Api::new();
    let table = Arc::<Table>::default();
    tokio::spawn(crate::load::report(client, table.clone()));
    let list = api.next().await;
    assert_eq!(list.what, "GET /apis/run.evroclabs.net/v1alpha1/revisions");
    list.answer(200, revisions(found));
    (api, table)
}

#[test]
fn the_first_request_is_reported_at_once_and_the_end_when_it_has_settled() {
    time::run(async {
        let (mut api, table) = reporter(vec![]).await;
        api.quiet(Duration::from_secs(3600)).await;
        let start = time::now();
        let mut ticket = table.ticket(&key("a-1"));
        api.hears(1, 0).await;
        assert_eq!((time::now() - start).as_millis(), 0);
        ticket.start();
        api.hears(0, 1).await;
        drop(ticket);
        api.hears(0, 0).await;
        assert_eq!((time::now() - start).as_secs(), 2);
        api.quiet(Duration::from_secs(3600)).await;
    });
}

#[test]
fn many_short_requests_are_few_reports_and_the_last_is_not_forgotten() {
    time::run(async {
        let (mut api, table) = reporter(vec![]).await;
        for _ in 0..1000 {
            drop(table.ticket(&key("a-1")));
        }
        api.hears(0, 0).await;
        for _ in 0..1000 {
            drop(table.ticket(&key("a-1")));
        }
        let before = time::now();
        api.hears(0, 0).await;
        assert_eq!((time::now() - before).as_secs(), 1);
        api.quiet(Duration::from_secs(3600)).await;
    });
}

#[test]
fn a_report_that_fails_is_repeated_also_the_last_one() {
    time::run(async {
        let (mut api, table) = reporter(vec![]).await;
        let ticket = table.ticket(&key("a-1"));
        api.report().await.0.fail(500, "InternalError");
        let before = time::now();
        api.hears(1, 0).await;
        assert!((time::now() - before) < Duration::from_secs(1), "a request waits for this");
        drop(ticket);
        for _ in 0..3 {
            // Broken off, as by an API server that was killed.
            drop(api.report().await);
        }
        // And one that hangs.
        let (hangs, ..) = api.report().await;
        api.hears(0, 0).await;
        drop(hangs);
        api.quiet(Duration::from_secs(3600)).await;
    });
}

#[test]
fn a_report_that_hangs_does_not_delay_those_of_other_revisions() {
    time::run(async {
        let (mut api, table) = reporter(vec![]).await;
        let slow = table.ticket(&key("slow"));
        let hangs = api.next().await;
        assert!(hangs.what.ends_with("/slow/status"), "{}", hangs.what);
        let start = time::now();
        let _ticket = table.ticket(&key("a-1"));
        api.hears(1, 0).await;
        assert_eq!((time::now() - start).as_millis(), 0);
        // Its own next report waits for it.
        drop(slow);
        api.quiet(Duration::from_secs(4)).await;
        hangs.answer(200, revision(1, 0));
        let next = api.next().await;
        assert!(next.what.ends_with("/slow/status"), "{}", next.what);
    });
}

#[test]
fn an_api_that_is_away_is_not_flooded() {
    time::run(async {
        let (mut api, table) = reporter(vec![]).await;
        let _ticket = table.ticket(&key("a-1"));
        let start = time::now();
        let mut tries = 0;
        while (time::now() - start) < Duration::from_secs(10) {
            api.report().await.0.fail(503, "ServiceUnavailable");
            drop(table.ticket(&key("a-1")));
            tries += 1;
        }
        assert!(tries <= 41, "{tries} reports in 10 s");
    });
}

#[test]
fn a_deleted_revision_needs_no_report() {
    time::run(async {
        let (mut api, table) = reporter(vec![]).await;
        let ticket = table.ticket(&key("a-1"));
        api.report().await.0.fail(404, "NotFound");
        api.quiet(Duration::from_secs(3600)).await;
        drop(ticket);
        api.report().await.0.fail(404, "NotFound");
        api.quiet(Duration::from_secs(3600)).await;
    });
}

#[test]
fn reports_of_a_former_process_are_withdrawn_until_the_write_succeeds() {
    time::run(async {
        let (mut api, _table) = reporter(vec![revision(1, 4)]).await;
        api.report().await.0.fail(500, "InternalError");
        api.hears(0, 0).await;
        api.quiet(Duration::from_secs(3600)).await;
    });
}

#[test]
fn a_former_process_is_looked_up_until_the_api_answers() {
    time::run(async {
        let (mut api, client) = Api::new();
        tokio::spawn(crate::load::report(client, Arc::default()));
        api.next().await.fail(503, "ServiceUnavailable");
        drop(api.next().await);
        let hangs = api.next().await;
        api.next().await.answer(200, revisions(vec![revision(0, 1)]));
        api.hears(0, 0).await;
        drop(hangs);
    });
}

#[test]
fn revisions_without_requests_are_forgotten() {
    time::run(async {
        let (mut api, table) = reporter(vec![]).await;
        for n in 0..100 {
            drop(table.ticket(&key(&format!("old-{n}"))));
        }
        for _ in 0..100 {
            api.next().await.answer(200, revision(0, 0));
        }
        time::pass(Duration::from_secs(120)).await;
        let _ticket = table.ticket(&key("a-1"));
        api.hears(1, 0).await;
        settled().await;
        assert_eq!(table.requests().len(), 1);
    });
}
