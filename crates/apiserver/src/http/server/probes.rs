//! Responses of `/livez`, `/readyz` and `/healthz`.

use http::{Response, StatusCode};

use super::shared::Shared;
use crate::http::health::once_a_while;
use crate::http::request::Query;
use crate::object::body::{self, ResponseBody};

struct Finding<'a> {
    name: &'a str,
    problem: Option<String>,
}

/// Answers a health path, given by its segments; `None` for other paths.
pub(crate) async fn answer(shared: &Shared, segments: &[String], query: &Query) -> Option<Response<ResponseBody>> {
    let kind = match segments.first()?.as_str() {
        kind @ ("livez" | "readyz" | "healthz") => kind,
        _ => return None,
    };
    let only = segments.get(1).map(String::as_str);
    let mut findings = vec![Finding { name: "ping", problem: None }];
    if kind != "livez" {
        let problem = (!shared.cache.is_healthy()).then(|| "the store is not being followed".to_owned());
        findings.push(Finding { name: "cache", problem });
        let look = async { shared.store.revision().await.map(|_| ()).map_err(|error| error.to_string()) };
        let problem = once_a_while(&shared.probes.store, "store", look).await;
        findings.push(Finding { name: "store", problem });
    }
    if kind == "readyz" {
        let problem = shared.stopping.is_cancelled().then(|| "the server is stopping".to_owned());
        findings.push(Finding { name: "shutdown", problem });
    }
    for (check, last) in shared.probes.checks.iter().filter(|(check, _)| kind != "livez" || check.is_liveness()) {
        let problem = once_a_while(last, check.name(), check.check()).await;
        findings.push(Finding { name: check.name(), problem });
    }
    if let Some(only) = only {
        findings.retain(|finding| finding.name == only);
        if findings.is_empty() {
            return Some(text(StatusCode::NOT_FOUND, "404 page not found\n".into()));
        }
    }
    let failed = findings.iter().any(|finding| finding.problem.is_some());
    if !failed && !query.flag("verbose") {
        return Some(text(StatusCode::OK, "ok".into()));
    }
    let mut lines = String::new();
    for finding in &findings {
        match &finding.problem {
            None => lines.push_str(&format!("[+]{} ok\n", finding.name)),
            // Callers are anonymous here, and the reason may contain internal details: it is in the log.
            Some(_) => lines.push_str(&format!("[-]{} failed: reason withheld\n", finding.name)),
        }
    }
    lines.push_str(&format!("{kind} check {}\n", if failed { "failed" } else { "passed" }));
    Some(text(if failed { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }, lines))
}

fn text(code: StatusCode, text: String) -> Response<ResponseBody> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-cache, private"));
    headers.insert("x-content-type-options", http::HeaderValue::from_static("nosniff"));
    response
}
