//! What all requests share: the current book, the latest verdicts, and the news that is pushed to open pages.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use axum::response::sse::Event;
use course::log::Graded;
use tokio::sync::broadcast::{self, Receiver};

use super::Options;
use super::run::Runner;
use super::site::Site;
use super::tail::Tail;
use crate::report;

/// The interval at which the log is polled.
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Live {
    pub address: SocketAddr,
    pub token: String,
    pub runner: Runner,
    site: RwLock<Arc<Site>>,
    /// The latest grading of each exercise, as JSON.
    verdicts: Mutex<BTreeMap<String, String>>,
    news: broadcast::Sender<News>,
}

/// An event that is pushed to open pages.
#[derive(Debug, Clone)]
pub enum News {
    /// The number of the book's new build.
    Book(u64),
    /// The grading of an exercise, as JSON.
    Verdict(String),
}

impl From<News> for Event {
    fn from(news: News) -> Event {
        match news {
            News::Book(build) => Event::default().event("book").data(build.to_string()),
            News::Verdict(json) => Event::default().event("verdict").data(json),
        }
    }
}

impl Live {
    /// Builds the book for the first time.
    pub fn new(options: &Options, address: SocketAddr, token: String) -> Result<Live> {
        let site = Site::build(&options.clone.join("book"), 1)?;
        Ok(Live {
            address,
            token,
            runner: Runner::new(options),
            site: RwLock::new(Arc::new(site)),
            verdicts: Mutex::default(),
            news: broadcast::channel(64).0,
        })
    }

    pub fn site(&self) -> Arc<Site> {
        let site = self.site.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&site)
    }

    /// Builds the book again. If that fails, the last good build stays.
    pub fn rebuild(&self, book: &Path) {
        let build = self.site().build + 1;
        match Site::build(book, build) {
            Ok(site) => {
                *self.site.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(site);
                let _ = self.news.send(News::Book(build));
            }
            Err(error) => report(format_args!(
                "{error:#}\nThe book cannot be built. The last good build is still served."
            )),
        }
    }

    /// Returns the current state, and a receiver of everything that happens after it.
    pub fn news(&self) -> (Vec<News>, Receiver<News>) {
        // Subscribe first, so that no verdict is missed in between.
        let later = self.news.subscribe();
        let verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        let verdicts = verdicts.values().cloned().map(News::Verdict);
        let book = News::Book(self.site().build);
        (std::iter::once(book).chain(verdicts).collect(), later)
    }

    fn publish(&self, graded: Graded) {
        let Ok(json) = serde_json::to_string(&graded) else {
            return;
        };
        let mut verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        verdicts.insert(graded.exercise, json.clone());
        let _ = self.news.send(News::Verdict(json));
    }
}

/// Publishes each grading that is added to the log, for as long as the process runs.
pub fn follow(live: &Live, log: PathBuf) -> ! {
    let mut tail = Tail::new(log);
    loop {
        for graded in tail.new_gradings() {
            live.publish(graded);
        }
        thread::sleep(POLL);
    }
}
