//! Refuses requests that do not come from this server's own pages.
//!
//! A foreign page can make the reader's browser send requests here. The `Origin` header names such a page. If the page
//! has pointed its own host name at this address (DNS rebinding), the `Host` header shows it. A request that runs a
//! program or reads verdicts also needs the token, which is in this server's pages only, and no foreign page can read
//! those.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::live::Live;

/// The header with the token. A foreign page cannot send it without a CORS preflight request, which fails.
pub const TOKEN: &str = "x-workbook-token";

/// The answer to a page from an earlier run of the server.
const OLD_TOKEN: &str = "This page is from an earlier run of the server. Reload it.";
const FOREIGN: &str = "The book's server answers its own pages only.";

pub async fn check(State(live): State<Arc<Live>>, request: Request, next: Next) -> Response {
    let head = RequestHead {
        method: request.method(),
        live: request.uri().path().starts_with("/live"),
        query: request.uri().query().unwrap_or_default(),
        headers: request.headers(),
    };
    let mut response = match head.check(live.address, &live.token) {
        Ok(()) => next.run(request).await,
        Err(reason) => (StatusCode::FORBIDDEN, reason).into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name.clone(), HeaderValue::from_static(value));
    }
    response
}

/// Headers of every answer. They allow no foreign resource, no foreign frame around a page, and no cached copy, which
/// would keep an old token.
static HEADERS: &[(HeaderName, &str)] = &[
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self' 'unsafe-inline' data:; frame-ancestors 'self'; base-uri 'self'; form-action 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

/// The parts of a request that are checked.
struct RequestHead<'a> {
    method: &'a Method,
    /// Whether it runs a program or reads verdicts.
    live: bool,
    query: &'a str,
    headers: &'a HeaderMap,
}

impl RequestHead<'_> {
    /// Returns the reason why the request is refused as an error.
    fn check(&self, address: SocketAddr, token: &str) -> Result<(), String> {
        let port = address.port();
        let names = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
        let host = self.header(header::HOST);
        let Some(host) = host.filter(|host| names.iter().any(|name| name == host)) else {
            return Err(format!(
                "The book's server is called {}.",
                names.join(" or ")
            ));
        };
        let origin = self.header(header::ORIGIN);
        if origin.is_some_and(|origin| origin.strip_prefix("http://") != Some(host)) {
            return Err(FOREIGN.to_owned());
        }
        if !self.live {
            return Ok(());
        }
        let site = self.header(HeaderName::from_static("sec-fetch-site"));
        if site.is_some_and(|site| site != "same-origin") {
            return Err(FOREIGN.to_owned());
        }
        let sent = match *self.method {
            // A browser's EventSource cannot send a header.
            Method::GET => self.query.strip_prefix("token="),
            Method::POST if origin.is_some() => self.header(HeaderName::from_static(TOKEN)),
            _ => return Err(FOREIGN.to_owned()),
        };
        match sent == Some(token) {
            true => Ok(()),
            false => Err(OLD_TOKEN.to_owned()),
        }
    }

    /// Returns the value of a header, or `?`, which matches nothing, if there are several.
    fn header(&self, name: HeaderName) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().unwrap_or("?");
        Some(if values.next().is_some() { "?" } else { value })
    }
}
