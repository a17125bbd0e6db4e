//! Who may ask for what: only this server's own pages, opened under its own name.
//!
//! A page elsewhere can make the reader's browser send requests here. Its `Origin` gives it away; where it has given its
//! own name this address (DNS rebinding), the `Host` does. What runs a program or reads verdicts also needs the token,
//! which stands only in the pages, and no other page can read those.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Live;

/// The header with the token. A foreign page cannot send it without asking first, and is not answered.
pub const TOKEN: &str = "x-workbook-token";

pub async fn check(State(live): State<Arc<Live>>, request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let asked = Asked {
        method: request.method(),
        live: request.uri().path().starts_with("/live"),
        query,
    };
    if !allowed(live.address, &live.token, &asked, request.headers()) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name.clone(), HeaderValue::from_static(value));
    }
    response
}

/// No foreign resource, no foreign frame around a page, and no copy that outlives this run's token.
static HEADERS: &[(HeaderName, &str)] = &[
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self' 'unsafe-inline' data:; frame-ancestors 'self'; base-uri 'self'; form-action 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

struct Asked<'a> {
    method: &'a Method,
    /// Whether it asks for more than a page.
    live: bool,
    query: &'a str,
}

fn allowed(address: SocketAddr, token: &str, asked: &Asked, headers: &HeaderMap) -> bool {
    let one = |name: HeaderName| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap_or("?"));
        // Two are one too many.
        if values.next().is_some() {
            Some("?")
        } else {
            value
        }
    };
    let Some(host) = one(header::HOST) else {
        return false;
    };
    let port = address.port();
    let ours = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    if !ours.iter().any(|name| name == host) {
        return false;
    }
    let origin = one(header::ORIGIN);
    let same = |origin: &str| origin.strip_prefix("http://") == Some(host);
    if origin.is_some_and(|origin| !same(origin)) {
        return false;
    }
    if !asked.live {
        return true;
    }
    let site = one(HeaderName::from_static("sec-fetch-site"));
    if site.is_some_and(|site| site != "same-origin") {
        return false;
    }
    match *asked.method {
        // The browser's EventSource can send no header of its own.
        Method::GET => asked.query.strip_prefix("token=") == Some(token),
        Method::POST => origin.is_some() && one(HeaderName::from_static(TOKEN)) == Some(token),
        _ => false,
    }
}
