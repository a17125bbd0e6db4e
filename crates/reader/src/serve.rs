//! Serves the book on the loopback: pages, verdicts as they come, and the lab's programs by name.

mod guard;
mod run;
mod site;
mod tail;
mod watch;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{self, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures_util::stream::{self, Stream};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

pub use guard::TOKEN;
pub use run::Limits;
use run::Runner;
use site::Site;
use tail::Tail;

/// What to serve, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The clone with the book.
    pub clone: PathBuf,
    /// 0 for any that is free.
    pub port: u16,
    /// The verdicts, a line of JSON each.
    pub events: PathBuf,
    /// What builds the lab's programs.
    pub cargo: OsString,
    /// Where they are built; otherwise where cargo builds by itself.
    pub target: Option<PathBuf>,
    /// What a program may take.
    pub limits: Limits,
}

/// A server, with its address, that runs when it is told to.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    live: Arc<Live>,
    options: Options,
}

/// What all requests share.
#[derive(Debug)]
struct Live {
    address: SocketAddr,
    /// Stands in the pages that this run serves, and nowhere else.
    token: String,
    site: RwLock<Arc<Site>>,
    /// The last verdicts on each exercise, as JSON.
    verdicts: Mutex<BTreeMap<String, String>>,
    news: broadcast::Sender<News>,
    runner: Runner,
}

/// What is pushed to the pages.
#[derive(Debug, Clone)]
enum News {
    /// The book was built again: its number.
    Book(u64),
    /// Verdicts on an exercise, as JSON.
    Verdict(String),
}

impl From<News> for Event {
    fn from(news: News) -> Event {
        match news {
            News::Book(number) => Event::default().event("book").data(number.to_string()),
            News::Verdict(json) => Event::default().event("verdict").data(json),
        }
    }
}

impl Server {
    /// Builds the book, and takes the port.
    ///
    /// # Errors
    /// If the book cannot be built, or the port is taken.
    pub async fn start(options: Options) -> Result<Server> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| {
            let port = options.port;
            format!("port {port} of 127.0.0.1 cannot be had: --port 0 takes any that is free")
        })?;
        let site = Site::build(&options.clone.join("book"), 1)?;
        let live = Live {
            address: listener.local_addr()?,
            token: random()?,
            site: RwLock::new(Arc::new(site)),
            verdicts: Mutex::default(),
            news: broadcast::channel(64).0,
            runner: Runner::new(&options),
        };
        Ok(Server {
            listener,
            live: Arc::new(live),
            options,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.live.address
    }

    /// What its pages know, and no other page.
    pub fn token(&self) -> &str {
        &self.live.token
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// If the clone's files cannot be watched.
    pub async fn run(self) -> Result<()> {
        let live = Arc::clone(&self.live);
        let book = self.options.clone.join("book");
        let _watching = watch::watch(&self.options.clone, move || live.rebuild(&book))?;
        tokio::spawn(follow(Arc::clone(&self.live), self.options.events));
        let router = Router::new()
            .route("/live/events", get(events))
            .route("/live/run/{name}", post(run_program))
            .route("/live/trace/{name}", post(record_trace))
            .fallback(get(page))
            .layer(middleware::from_fn_with_state(
                Arc::clone(&self.live),
                guard::check,
            ))
            .with_state(self.live);
        axum::serve(self.listener, router).await?;
        Ok(())
    }
}

impl Live {
    fn site(&self) -> Arc<Site> {
        let site = self.site.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&site)
    }

    /// A book that cannot be built leaves the last one up.
    fn rebuild(&self, book: &Path) {
        let number = self.site().number + 1;
        match Site::build(book, number) {
            Ok(site) => {
                *self.site.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(site);
                let _ = self.news.send(News::Book(number));
            }
            Err(error) => eprintln!("{error:#}\nThe book stays as it was."),
        }
    }

    fn keep(&self, verdict: tail::Verdict) {
        let Ok(json) = serde_json::to_string(&verdict) else {
            return;
        };
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.insert(verdict.exercise, json.clone());
        let _ = self.news.send(News::Verdict(json));
    }
}

/// Pushes each verdict that is added to the log.
async fn follow(live: Arc<Live>, log: PathBuf) {
    let mut tail = Tail::of(log);
    loop {
        for verdict in tail.new_verdicts() {
            live.keep(verdict);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn page(State(live): State<Arc<Live>>, uri: Uri) -> Response {
    let site = live.site();
    let (status, page) = match site.page(uri.path()) {
        Some(page) => (StatusCode::OK, page),
        None => match site.page("/404.html") {
            Some(page) => (StatusCode::NOT_FOUND, page),
            None => return StatusCode::NOT_FOUND.into_response(),
        },
    };
    let body = page.body(&live.token, site.number);
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static(page.kind))];
    (status, kind, body).into_response()
}

/// The verdicts so far, then each as it comes; the book's number, and each new one.
async fn events(
    State(live): State<Arc<Live>>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    // Before the verdicts are read: none is missed in between.
    let news = live.news.subscribe();
    let first: Vec<News> = {
        let verdicts = live.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let verdicts = verdicts.values().cloned().map(News::Verdict);
        let book = News::Book(live.site().number);
        std::iter::once(book).chain(verdicts).collect()
    };
    let later = stream::unfold(news, async |mut news| {
        loop {
            match news.recv().await {
                Ok(item) => return Some((item, news)),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let all = futures_util::StreamExt::chain(stream::iter(first), later);
    let all = futures_util::StreamExt::map(all, |news| Ok(Event::from(news)));
    Sse::new(all).keep_alive(KeepAlive::default())
}

async fn run_program(
    State(live): State<Arc<Live>>,
    extract::Path(name): extract::Path<String>,
) -> Response {
    answer(live, move |runner| runner.example(&name)).await
}

async fn record_trace(
    State(live): State<Arc<Live>>,
    extract::Path(name): extract::Path<String>,
) -> Response {
    answer(live, move |runner| runner.trace(&name)).await
}

async fn answer(
    live: Arc<Live>,
    run: impl FnOnce(&Runner) -> Result<run::Ran, run::Refused> + Send + 'static,
) -> Response {
    let ran = tokio::task::spawn_blocking(move || run(&live.runner)).await;
    match ran {
        Ok(Ok(ran)) => Json(ran).into_response(),
        Ok(Err(run::Refused::Unknown)) => StatusCode::NOT_FOUND.into_response(),
        Ok(Err(run::Refused::Busy)) => {
            let words = "another program is running: try again in a moment";
            (StatusCode::TOO_MANY_REQUESTS, words).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// 128 bits that nobody can guess.
fn random() -> Result<String> {
    let mut bytes = [0; 16];
    let mut source = File::open("/dev/urandom").context("/dev/urandom")?;
    source.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
