//! The check of `Origin`. A page of any site may make a browser open a WebSocket to any host, with the client certificate that the
//! browser has for it, and unlike other answers the page may read what comes back: so pages of strangers are refused.

use http::{HeaderMap, Request, header};

use crate::object::error::{ApiError, Named};

/// Refuses the request if it is the opening of a WebSocket by a page of another host.
///
/// # Errors
/// The 403.
pub(super) fn check<B>(request: &Request<B>, allowed: &[String]) -> Result<(), ApiError> {
    let host = request.uri().authority().map(|it| it.as_str()).or_else(|| text(request.headers(), &header::HOST));
    if !takes_over(request) || is_allowed(request.headers(), host.unwrap_or_default(), allowed) {
        return Ok(());
    }
    let why = "the page that opens this WebSocket belongs to another host (header Origin)";
    Err(ApiError::forbidden(Named { group: "", resource: "websockets", name: "" }, why))
}

/// Whether the request takes the connection over, or a stream of it.
fn takes_over<B>(request: &Request<B>) -> bool {
    request.headers().contains_key(header::UPGRADE) || request.method() == http::Method::CONNECT
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Whether pages of the origin may open it. Programs send no origin; `null` is that of pages without a host of their own.
fn is_allowed(headers: &HeaderMap, host: &str, allowed: &[String]) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else { return !headers.contains_key(header::ORIGIN) };
    let Some((scheme, of_page)) = origin.to_str().ok().and_then(|it| it.split_once("://")) else { return false };
    let without_port = |host: &str| {
        let host = host.to_ascii_lowercase();
        let port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
        host.strip_suffix(port).map_or(host.clone(), str::to_owned)
    };
    let of_page = without_port(of_page);
    !of_page.is_empty() && (of_page == without_port(host) || allowed.iter().any(|it| without_port(it) == of_page))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_same_host_or_of_the_console_open_websockets() {
        let allowed = ["console.evroc.example".to_owned(), "console.evroc.example:8443".to_owned()];
        for (origins, is_fine) in [
            (&[][..], true),
            (&["https://api.evroc.example"], true),
            (&["https://api.evroc.example:443"], true),
            (&["https://API.evroc.example"], true),
            (&["https://console.evroc.example"], true),
            (&["https://console.evroc.example:8443"], true),
            (&["https://console.evroc.example:9443"], false),
            (&["https://evil.example"], false),
            (&["https://api.evroc.example.evil.example"], false),
            (&["https://api.evroc.example:8443"], false),
            (&["http://api.evroc.example:443"], false),
            (&["https://"], false),
            (&["null"], false),
            (&[""], false),
            (&["https://api.evroc.example", "https://evil.example"], false),
        ] {
            let mut request = Request::get("/").header("host", "api.evroc.example").header("upgrade", "websocket");
            for origin in origins {
                request = request.header("origin", *origin);
            }
            let found = check(&request.body(()).unwrap(), &allowed);
            assert_eq!(found.is_ok(), is_fine, "{origins:?}");
        }
        let plain = Request::get("/").header("host", "api.evroc.example").header("origin", "https://evil.example");
        assert!(check(&plain.body(()).unwrap(), &[]).is_ok(), "a browser does not show the page an ordinary answer");
    }
}
