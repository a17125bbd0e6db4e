//! The routes of the server.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::middleware;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::sync::broadcast::error::RecvError;

use super::guard;
use super::live::Live;
use super::run::{Ran, Refusal, Runner};

pub fn router(live: &Arc<Live>) -> Router {
    Router::new()
        .route("/live/events", get(events))
        .route("/live/run/{name}", post(run_program))
        .route("/live/run-c/{name}", post(run_c_program))
        .route("/live/trace/{name}", post(record_trace))
        .fallback(get(file))
        .layer(middleware::from_fn_with_state(
            Arc::clone(live),
            guard::check,
        ))
        .with_state(Arc::clone(live))
}

async fn file(State(live): State<Arc<Live>>, uri: Uri) -> Response {
    let site = live.site();
    let (status, file) = match site.file(uri.path()) {
        Some(file) => (StatusCode::OK, file),
        None => match site.file("/404.html") {
            Some(file) => (StatusCode::NOT_FOUND, file),
            None => return StatusCode::NOT_FOUND.into_response(),
        },
    };
    let body = file.body(&live.token, site.build);
    let content_type = [(header::CONTENT_TYPE, file.content_type.clone())];
    (status, content_type, body).into_response()
}

/// The build of the book and the verdicts so far, then each change.
async fn events(
    State(live): State<Arc<Live>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let (now, later) = live.news();
    let later = stream::unfold(later, async |mut later| {
        loop {
            match later.recv().await {
                Ok(news) => return Some((news, later)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let all = stream::iter(now).chain(later);
    Sse::new(all.map(|news| Ok(Event::from(news)))).keep_alive(KeepAlive::default())
}

async fn run_program(State(live): State<Arc<Live>>, Path(name): Path<String>) -> Response {
    answer(live, move |runner| runner.example(&name)).await
}

async fn run_c_program(State(live): State<Arc<Live>>, Path(name): Path<String>) -> Response {
    answer(live, move |runner| runner.c_program(&name)).await
}

async fn record_trace(State(live): State<Arc<Live>>, Path(name): Path<String>) -> Response {
    answer(live, move |runner| runner.trace(&name)).await
}

async fn answer(
    live: Arc<Live>,
    run: impl FnOnce(&Runner) -> Result<Ran, Refusal> + Send + 'static,
) -> Response {
    let ran = tokio::task::spawn_blocking(move || run(&live.runner)).await;
    let (status, reason) = match ran {
        Ok(Ok(ran)) => return Json(ran).into_response(),
        Ok(Err(Refusal::UnknownName)) => (
            StatusCode::NOT_FOUND,
            "The lab has no program with this name.",
        ),
        Ok(Err(Refusal::Busy)) => (
            StatusCode::TOO_MANY_REQUESTS,
            "Another program is running. Try again in a moment.",
        ),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "The server failed. Its terminal shows why.",
        ),
    };
    (status, reason).into_response()
}
