//! Responses of `/livez`, `/readyz` and `/healthz`.

use std::sync::Arc;

use http::{Response, StatusCode};

use super::shared::Shared;
use crate::http::health::HealthCheck;
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
        let problem = shared.store.revision().await.err().map(|error| error.to_string());
        findings.push(Finding { name: "store", problem });
    }
    if kind == "readyz" {
        let problem = shared.stopping.is_cancelled().then(|| "the server is stopping".to_owned());
        findings.push(Finding { name: "shutdown", problem });
    }
    let relevant: Vec<&Arc<dyn HealthCheck>> =
        shared.checks.iter().filter(|check| kind != "livez" || check.is_liveness()).collect();
    for check in &relevant {
        findings.push(Finding { name: check.name(), problem: check.check().await.err() });
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
            Some(problem) => {
                // Callers are anonymous here, and the reason may contain internal details.
                tracing::warn!(check = finding.name, %problem, "health check failed");
                lines.push_str(&format!("[-]{} failed: reason withheld\n", finding.name));
            }
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
