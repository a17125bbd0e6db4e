//! The server as a browser meets it, and as a foreign page would misuse it.

mod common;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::{Served, Small, clone, serve, within};
use reader::serve::{Limits, TOKEN};

/// The real book; its programs are those of the lab.
fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| serve(clone(), Limits::default()))
}

/// One request, and what came back.
struct Request<'a> {
    served: &'a Served,
    line: String,
    headers: Vec<(&'static str, String)>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl<'a> Request<'a> {
    /// As this server's own page sends it.
    fn get(served: &'a Served, path: &str) -> Request<'a> {
        let headers = vec![("Host", served.address.to_string())];
        let line = format!("GET {path} HTTP/1.1");
        Request {
            served,
            line,
            headers,
        }
    }

    fn post(served: &'a Served, path: &str) -> Request<'a> {
        let mut request = Request::get(served, path);
        request.line = format!("POST {path} HTTP/1.1");
        let origin = format!("http://{}", served.address);
        request.with("Origin", &origin).with(TOKEN, &served.token)
    }

    /// With another value, or none.
    fn with(mut self, name: &'static str, value: &str) -> Request<'a> {
        self.headers.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            self.headers.push((name, value.to_owned()));
        }
        self
    }

    /// With a second one.
    fn also(mut self, name: &'static str, value: &str) -> Request<'a> {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn open(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.served.address).expect("it listens");
        let mut text = format!("{}\r\nConnection: close\r\n", self.line);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if self.line.starts_with("POST") {
            text += "Content-Length: 0\r\n";
        }
        write!(stream, "{text}\r\n").expect("it reads");
        stream
    }

    /// The whole answer, which takes so long at most.
    fn send_within(&self, time: Duration) -> Answer {
        let mut text = Vec::new();
        let mut stream = self.open();
        stream.set_read_timeout(Some(time)).expect("a timeout");
        // A stream of events does not end: what has come by then will do.
        let _ = stream.read_to_end(&mut text);
        let text = String::from_utf8_lossy(&text).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        Answer {
            status: status.unwrap_or_default(),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    fn send(&self) -> Answer {
        self.send_within(Duration::from_secs(400))
    }

    /// It is refused, and learns nothing.
    fn is_refused(&self, why: &str) {
        let answer = self.send_within(Duration::from_secs(10));
        assert!(
            [400, 403, 404, 405].contains(&answer.status),
            "{why}: {}",
            answer.status
        );
        for secret in [&*self.served.token, "<main", "\"ok\"", "event:"] {
            assert!(!answer.body.contains(secret), "{why}: {}", answer.body);
        }
        assert!(
            !answer.head.contains("access-control-allow"),
            "{why}: {}",
            answer.head
        );
    }
}

#[test]
fn a_page_is_live_and_says_so_to_its_scripts() {
    let served = served();
    for path in ["/", "/index.html", "/private.html"] {
        let answer = Request::get(served, path).send();
        assert_eq!(answer.status, 200, "{path}");
        let meta = format!(
            "<meta name=\"workbook-live\" data-token=\"{}\"",
            served.token
        );
        assert!(answer.body.contains(&meta), "{path}");
        assert!(
            answer.head.contains("content-type: text/html"),
            "{path}: {}",
            answer.head
        );
        assert!(
            answer
                .head
                .contains("content-security-policy: default-src 'self'")
        );
        assert!(answer.head.contains("cache-control: no-store"));
    }
    let style = Request::get(served, "/theme/none.css").send();
    assert_eq!(style.status, 404);
    let local = format!("localhost:{}", served.address.port());
    let answer = Request::get(served, "/").with("Host", &local).send();
    assert_eq!(answer.status, 200, "localhost is its name, too");
}

#[test]
fn only_the_loopback_is_listened_on() {
    assert!(served().address.ip().is_loopback());
    assert_eq!(served().address.ip().to_string(), "127.0.0.1");
}

#[test]
fn a_foreign_page_gets_nothing() {
    let served = served();
    let events = format!("/live/events?token={}", served.token);
    let run = "/live/run/zero_filled";
    let port = served.address.port();
    // A name that its owner has pointed at this address.
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        format!("127.0.0.1:{}", port ^ 1),
        "127.0.0.1".to_owned(),
        format!("user@127.0.0.1:{port}"),
        String::new(),
    ] {
        let why = format!("host {host:?}");
        Request::get(served, "/")
            .with("Host", &host)
            .is_refused(&why);
        Request::get(served, &events)
            .with("Host", &host)
            .is_refused(&why);
        let origin = format!("http://{host}");
        let request = Request::post(served, run).with("Host", &host);
        request.with("Origin", &origin).is_refused(&why);
    }
    for origin in [
        "http://evil.example".to_owned(),
        "null".to_owned(),
        format!("https://127.0.0.1:{port}"),
        format!("http://localhost:{port}"),
        format!("http://127.0.0.1:{}", port ^ 1),
        format!("http://127.0.0.1:{port}.evil.example"),
    ] {
        let why = format!("origin {origin:?}");
        Request::get(served, "/")
            .with("Origin", &origin)
            .is_refused(&why);
        Request::get(served, &events)
            .with("Origin", &origin)
            .is_refused(&why);
        Request::post(served, run)
            .with("Origin", &origin)
            .is_refused(&why);
    }
    Request::post(served, run)
        .with("Origin", "")
        .is_refused("no origin");
    let two = Request::post(served, run).also("Origin", "http://evil.example");
    two.is_refused("two origins");
    let two = Request::get(served, "/").also("Host", "evil.example");
    two.is_refused("two hosts");
    for site in ["cross-site", "same-site", "none"] {
        let request = Request::get(served, &events);
        request.with("Sec-Fetch-Site", site).is_refused(site);
        let request = Request::post(served, run);
        request.with("Sec-Fetch-Site", site).is_refused(site);
    }
}

#[test]
fn without_the_token_there_is_nothing() {
    let served = served();
    let wrong = "0".repeat(served.token.len());
    let short = &served.token[..served.token.len() - 1];
    for token in ["", &*wrong, short] {
        for path in ["/live/run/zero_filled", "/live/trace/zero-page"] {
            let request = Request::post(served, path).with(TOKEN, token);
            request.is_refused(&format!("{path} with {token:?}"));
        }
        let path = format!("/live/events?token={token}");
        Request::get(served, &path).is_refused(&path);
    }
    Request::get(served, "/live/events").is_refused("no query");
    let query = format!("/live/run/zero_filled?token={}", served.token);
    let request = Request::post(served, &query).with(TOKEN, "");
    request.is_refused("a token that a link could hold");
}

#[test]
fn an_unknown_name_or_a_path_gets_nothing() {
    let served = served();
    for name in [
        "nothing",
        "record",
        "..",
        "../lab",
        "..%2fsrc%2flib",
        "%2e%2e%2f%2e%2e%2fsrc%2fmain",
        "%2fbin%2fsh",
        "zero_filled.rs",
        "zero_filled%00",
        "zero_filled%20--help",
        "--help",
        "-Zunstable",
        "zero_filled/",
        "",
    ] {
        for kind in ["run", "trace"] {
            let path = format!("/live/{kind}/{name}");
            Request::post(served, &path).is_refused(&path);
        }
    }
    for path in [
        "/../../Cargo.toml",
        "/..%2f..%2fCargo.toml",
        "/%2e%2e/%2e%2e/Cargo.toml",
        "/theme/../../book.toml",
        "//etc/passwd",
        "/etc/passwd",
        "/./index.html",
        "/.workbook/log.jsonl",
        "/live/events/../../index.html",
    ] {
        let answer = Request::get(served, path).send();
        assert!(
            [403, 404].contains(&answer.status),
            "{path}: {}",
            answer.status
        );
        for inside in ["[package]", "[book]", "root:"] {
            assert!(!answer.body.contains(inside), "{path}: {}", answer.body);
        }
    }
    Request::get(served, "/live/run/zero_filled").is_refused("a link runs nothing");
    let put = Request {
        line: "PUT /live/run/zero_filled HTTP/1.1".to_owned(),
        ..Request::post(served, "/")
    };
    put.is_refused("PUT");
}

#[test]
fn a_program_of_the_lab_is_run_by_its_name() {
    let served = served();
    let answer = Request::post(served, "/live/run/zero_filled").send();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let ran: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(ran["ok"], true, "{ran}");
    assert!(
        ran["output"]
            .as_str()
            .unwrap()
            .starts_with("asked for 1 byte\n"),
        "{ran}"
    );

    let answer = Request::post(served, "/live/trace/zero-page").send();
    let ran: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(ran["ok"], true, "{ran}");
    let trace: serde_json::Value =
        serde_json::from_str(ran["output"].as_str().unwrap()).expect("a trace");
    assert_eq!(trace["name"], "zero-page");
}

/// A clone whose cargo is a script: what it builds is a program that misbehaves.
fn misbehaving(program: &str, limits: Limits) -> (Small, Served) {
    let small = Small::new("# A page\n");
    small.write("bad", &format!("#!/bin/sh\n{program}\n"));
    let path = small.root().join("bad");
    let message = format!("{{\"executable\":\"{}\"}}", path.display());
    small.write("cargo", &format!("#!/bin/sh\necho '{message}'\n"));
    for file in ["bad", "cargo"] {
        let rights = fs::Permissions::from_mode(0o755);
        fs::set_permissions(small.root().join(file), rights).expect("rights");
    }
    let mut options = common::options(&small.root(), limits);
    options.cargo = small.root().join("cargo").into();
    let served = common::serve_with(options);
    (small, served)
}

fn run(served: &Served) -> (bool, String) {
    let answer = Request::post(served, "/live/run/zero_filled").send();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let ran: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    let output = ran["output"].as_str().unwrap().to_owned();
    (ran["ok"] == true, output)
}

#[test]
fn a_program_has_so_much_time_and_leaves_nothing_behind() {
    let limits = Limits {
        run: Duration::from_secs(1),
        ..Limits::default()
    };
    let (small, served) = misbehaving("echo begun\n(sleep 3; touch late) &\nsleep 60", limits);
    let begun = Instant::now();
    let (ok, output) = run(&served);
    assert!(
        !ok && output.contains("begun\n") && output.contains("stopped after 1 s"),
        "{output}"
    );
    assert!(begun.elapsed() < Duration::from_secs(20));
    std::thread::sleep(Duration::from_secs(4).saturating_sub(begun.elapsed()));
    assert!(
        !small.root().join("late").exists(),
        "what it started is gone, too"
    );
}

#[test]
fn a_program_prints_so_much() {
    let limits = Limits {
        output: 1000,
        ..Limits::default()
    };
    let (_small, served) = misbehaving("yes", limits);
    let (ok, output) = run(&served);
    assert!(!ok && output.contains("more than 1000 bytes"), "{output}");
    assert!(output.len() < 1100, "{}", output.len());
}

#[test]
fn a_program_that_fails_is_shown() {
    let (_small, served) = misbehaving("echo here >&2\nexit 3", Limits::default());
    let (ok, output) = run(&served);
    assert!(
        !ok && output.contains("here\n") && output.contains("exit status: 3"),
        "{output}"
    );
}

#[test]
fn one_program_runs_at_a_time() {
    let (small, served) = misbehaving("touch begun; sleep 2", Limits::default());
    let first = Request::post(&served, "/live/run/zero_filled").open();
    common::until("it begins", || small.root().join("begun").exists());
    let second = Request::post(&served, "/live/run/zero_filled").send();
    assert_eq!(second.status, 429, "{}", second.body);
    drop(first);
}

/// The events of a connection, as they come.
struct Events(BufReader<TcpStream>);

impl Events {
    fn of(served: &Served) -> Events {
        let path = format!("/live/events?token={}", served.token);
        let stream = Request::get(served, &path).open();
        let timeout = Some(Duration::from_secs(30));
        stream.set_read_timeout(timeout).expect("a timeout");
        Events(BufReader::new(stream))
    }

    /// The next event: its name and its data.
    fn next(&mut self) -> (String, String) {
        let (mut name, mut data) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            assert!(
                self.0.read_line(&mut line).expect("an event") > 0,
                "it ended"
            );
            let line = line.trim_end();
            if let Some(value) = line.strip_prefix("event: ") {
                name = value.to_owned();
            } else if let Some(value) = line.strip_prefix("data: ") {
                data = value.to_owned();
            } else if line.is_empty() && !name.is_empty() {
                return (name, data);
            }
        }
    }
}

fn verdict(passed: u32) -> String {
    format!(
        "{{\"at\":\"2026-11-25T10:00:00Z\",\"exercise\":\"private-alloc\",\"stages\":[{{\"name\":\"by_hand\",\
         \"bonus\":false,\"passed\":{passed},\"failed\":0,\"skipped\":0,\"not_started\":1}}],\"solved\":false}}\n"
    )
}

#[test]
fn verdicts_are_pushed_as_they_come() {
    let small = Small::new("# A page\n");
    let served = serve(&small.root(), Limits::default());
    fs::write(&served.events, format!("{{\"other\":1}}\n{}", verdict(1))).unwrap();
    let mut events = Events::of(&served);
    assert_eq!(events.next(), ("book".to_owned(), "1".to_owned()));
    let (name, data) = events.next();
    assert_eq!(name, "verdict");
    assert!(
        data.contains("\"exercise\":\"private-alloc\"") && data.contains("\"passed\":1"),
        "{data}"
    );
    let mut log = OpenOptions::new()
        .append(true)
        .open(&served.events)
        .unwrap();
    write!(log, "{{\"torn\":\n{}", verdict(2)).unwrap();
    let (_, data) = events.next();
    assert!(data.contains("\"passed\":2"), "{data}");
    // Who comes later is told what there is: the last word on each exercise.
    let mut late = Events::of(&served);
    assert_eq!(late.next().0, "book");
    assert!(late.next().1.contains("\"passed\":2"));
}

#[test]
fn an_edit_is_built_and_pushed_and_a_wrong_one_leaves_the_book_up() {
    let small = Small::new("# First\n");
    let served = serve(&small.root(), Limits::default());
    let mut events = Events::of(&served);
    assert_eq!(events.next().1, "1");
    let page = || Request::get(&served, "/page.html").send().body;
    small.write("book/src/page.md", "# Wrong\n\n```quiz\n```\n");
    std::thread::sleep(Duration::from_secs(1));
    assert!(page().contains("First"), "the last good book stays");
    small.write("book/src/page.md", "# Second\n");
    assert_eq!(events.next(), ("book".to_owned(), "2".to_owned()));
    assert!(page().contains("Second"));
    // An answer that is saved is none of the book's.
    small.write("exercises/private-alloc/src/lib.rs", "//! Mine.\n");
    small.write("book/src/page.md", "# Third\n");
    assert_eq!(events.next().1, "3");
    within(Duration::from_secs(5), "the third", || {
        page().contains("Third")
    });
}
