//! Serves the book on the loopback interface: its pages, verdicts as they are logged, and the lab's programs by name.

mod guard;
mod live;
mod routes;
mod run;
mod site;
mod tail;
mod watch;

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

pub use guard::TOKEN;
use live::Live;
pub use run::Limits;

#[derive(Debug, Clone)]
pub struct Options {
    /// The root of the clone whose book is served.
    pub clone: PathBuf,
    /// 0 takes any free port.
    pub port: u16,
    /// The progress log.
    pub log: PathBuf,
    /// The cargo that builds the lab's programs.
    pub cargo: OsString,
    /// The compiler of the lab's C programs.
    pub cc: OsString,
    /// The target directory of the lab's programs; `None` leaves the choice to cargo.
    pub target: Option<PathBuf>,
    pub limits: Limits,
    /// How long to wait for a request on an open connection.
    pub idle: Duration,
}

/// The default of [`Options::idle`].
pub const IDLE: Duration = Duration::from_secs(60);

/// A server that listens and does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    live: Arc<Live>,
    options: Options,
}

impl Server {
    /// Binds the port and builds the book.
    ///
    /// # Errors
    /// Returns an error if the port is taken or the book cannot be built.
    pub async fn start(options: Options) -> Result<Server> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port));
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}; --port 0 takes any free port"))?;
        let live = Live::new(&options, listener.local_addr()?, token()?)?;
        Ok(Server {
            listener,
            live: Arc::new(live),
            options,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.live.address
    }

    /// The secret that only the pages of this server know.
    pub fn token(&self) -> &str {
        &self.live.token
    }

    /// Serves until `stop` completes, and then ends the running lab program.
    ///
    /// # Errors
    /// Returns an error if the book's files cannot be watched.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<()> {
        let live = Arc::clone(&self.live);
        let book = self.options.clone.join("book");
        let _watching = watch::watch(&self.options.clone, move || live.rebuild(&book))?;
        let live = Arc::clone(&self.live);
        thread::spawn(move || live::follow(&live, self.options.log));
        let router = routes::router(&self.live);
        tokio::select! {
            () = accept(self.listener, router, self.options.idle) => {}
            () = stop => {}
        }
        self.live.runner.stop();
        Ok(())
    }
}

/// Answers every connection. `axum::serve` does not use a timer, so its idle connections would never be closed.
async fn accept(listener: TcpListener, router: Router, idle: Duration) {
    let mut http = http1::Builder::new();
    // hyper starts this timer when it begins to wait for a request, so it limits idle connections, too.
    http.timer(TokioTimer::new()).header_read_timeout(idle);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // There may be no free file descriptor. Wait until a connection is closed.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        let connection = http.serve_connection(TokioIo::new(stream), service);
        // An error means that the connection is broken or timed out, so there is no client to report it to.
        tokio::spawn(async move { _ = connection.await });
    }
}

/// Returns 128 random bits as hexadecimal digits.
fn token() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow!("the kernel returned no random numbers: {error}"))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}
