//! The server's answers to browsers, and to foreign pages that misuse it.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Served, SmallClone, artifact, clone, log_grading, options, serve, serve_with, until, within,
};
use course::log::{Log, Record};
use course::process;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reader::serve::{Limits, TOKEN};

/// A server of the real book and the real lab.
fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| serve(clone(), Limits::default()))
}

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
    /// A request as the server's own page sends it.
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

    /// Replaces a header. An empty value removes it.
    fn with(mut self, name: &'static str, value: &str) -> Request<'a> {
        self.headers.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            self.headers.push((name, value.to_owned()));
        }
        self
    }

    /// Adds a second header of the same name.
    fn also(mut self, name: &'static str, value: &str) -> Request<'a> {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn open(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.served.address).expect("the server listens");
        let mut text = format!("{}\r\nConnection: close\r\n", self.line);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if self.line.starts_with("POST") {
            text += "Content-Length: 0\r\n";
        }
        write!(stream, "{text}\r\n").expect("the request is sent");
        stream
    }

    /// Returns the answer, or what has arrived at the time limit: a stream of events does not end.
    fn send_within(&self, time: Duration) -> Answer {
        let mut text = Vec::new();
        let mut stream = self.open();
        stream.set_read_timeout(Some(time)).expect("a timeout");
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

    /// Asserts that the request is refused and that the answer reveals nothing.
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
fn a_page_tells_its_scripts_that_it_is_live() {
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
    assert_eq!(answer.status, 200, "localhost is refused");
}

#[test]
fn the_server_listens_on_the_loopback_interface_only() {
    assert!(served().address.ip().is_loopback());
    assert_eq!(served().address.ip().to_string(), "127.0.0.1");
}

#[test]
fn requests_of_foreign_pages_are_refused() {
    let served = served();
    let events = format!("/live/events?token={}", served.token);
    let run = "/live/run/zero_filled";
    let port = served.address.port();
    // DNS rebinding: the host name of a foreign page points at this address.
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
fn requests_without_the_token_are_refused() {
    let served = served();
    let wrong = "0".repeat(served.token.len());
    let short = &served.token[..served.token.len() - 1];
    for token in ["", &*wrong, short] {
        for path in [
            "/live/run/zero_filled",
            "/live/run-c/zero_filled",
            "/live/trace/zero-page",
        ] {
            let request = Request::post(served, path).with(TOKEN, token);
            request.is_refused(&format!("{path} with {token:?}"));
        }
        let path = format!("/live/events?token={token}");
        Request::get(served, &path).is_refused(&path);
    }
    Request::get(served, "/live/events").is_refused("no query");
    let query = format!("/live/run/zero_filled?token={}", served.token);
    let request = Request::post(served, &query).with(TOKEN, "");
    request.is_refused("a token in the URL of a POST");
    let old = Request::post(served, "/live/run/zero_filled").with(TOKEN, &wrong);
    let answer = old.send();
    assert!(answer.body.contains("Reload"), "{}", answer.body);
}

#[test]
fn unknown_names_and_paths_are_refused() {
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
        "zero_filled.c",
        "zero_filled%00",
        "zero_filled%20--help",
        "--help",
        "-Zunstable",
        "zero_filled/",
        "",
    ] {
        for kind in ["run", "run-c", "trace"] {
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
    Request::get(served, "/live/run/zero_filled").is_refused("GET");
    let put = Request {
        line: "PUT /live/run/zero_filled HTTP/1.1".to_owned(),
        ..Request::post(served, "/")
    };
    put.is_refused("PUT");
}

#[test]
fn a_lab_program_is_run_by_its_name() {
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

/// A server whose cargo is a script that claims to have built another script.
fn serve_script(program: &str, limits: Limits) -> (SmallClone, Served) {
    let small = SmallClone::new("# A page\n");
    let mut options = options(&small.root(), limits);
    options.cargo = fake_cargo(&small, program).into();
    let served = serve_with(options);
    (small, served)
}

fn fake_cargo(small: &SmallClone, program: &str) -> std::path::PathBuf {
    let program = small.script("program", program);
    small.script("cargo", &format!("echo '{}'", artifact(&program)))
}

fn limits(time: Duration, output: usize) -> Limits {
    Limits {
        run: process::Limits { time, output },
        ..Limits::default()
    }
}

fn run(served: &Served) -> (bool, String) {
    run_path(served, "/live/run/zero_filled")
}

fn run_c(served: &Served) -> (bool, String) {
    run_path(served, "/live/run-c/zero_filled")
}

fn run_path(served: &Served, path: &str) -> (bool, String) {
    let answer = Request::post(served, path).send();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let ran: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    let output = ran["output"].as_str().unwrap().to_owned();
    (ran["ok"] == true, output)
}

fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn the_time_limit_kills_a_program_and_its_children() {
    let program = "setsid sleep 1000 & echo $!\nsleep 1000 & echo $!\nsleep 1000";
    let (_small, served) = serve_script(program, limits(Duration::from_secs(1), 1000));
    let begun = Instant::now();
    let (ok, output) = run(&served);
    assert!(
        !ok && output.contains("(The program did not end within 1 seconds.)"),
        "{output}"
    );
    assert!(begun.elapsed() < Duration::from_secs(20));
    for pid in output.lines().take(2) {
        until("the children are dead", || !is_running(pid));
    }
}

#[test]
fn a_child_that_calls_setsid_does_not_outlive_its_program() {
    let program = "setsid sleep 1000 & echo $!";
    let (_small, served) = serve_script(program, Limits::default());
    let begun = Instant::now();
    let (ok, output) = run(&served);
    assert!(ok, "{output}");
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "the server waited for the child"
    );
    until("the child is dead", || !is_running(&output));
}

#[test]
fn endless_output_is_cut_off() {
    let (_small, served) = serve_script("yes", limits(Duration::from_secs(60), 1000));
    let (ok, output) = run(&served);
    assert!(
        !ok && output.contains("(The program printed more than 1000 bytes.)"),
        "{output}"
    );
    assert!(output.len() < 1100, "{}", output.len());
}

#[test]
fn a_failure_is_shown_with_its_output_and_exit_status() {
    let (_small, served) = serve_script("echo here >&2\nexit 3", Limits::default());
    let (ok, output) = run(&served);
    assert!(
        !ok && output.contains("here\n\n(The program exited with status 3.)"),
        "{output}"
    );
}

#[test]
fn a_failed_build_is_shown_with_the_errors_of_cargo() {
    let small = SmallClone::new("# A page\n");
    let mut options = options(&small.root(), Limits::default());
    let script = "echo '{\"reason\":\"build-finished\"}'; echo 'error: wrong' >&2; exit 101";
    options.cargo = small.script("cargo", script).into();
    let (ok, output) = run(&serve_with(options));
    assert!(!ok);
    assert_eq!(
        output,
        "error: wrong\n\n(The build exited with status 101.)"
    );
}

#[test]
fn a_c_program_is_compiled_and_run_by_its_name() {
    let small = SmallClone::new("# A page\n");
    let target = tempfile::tempdir().expect("a folder");
    let mut options = options(&small.root(), Limits::default());
    options.target = Some(target.path().to_owned());
    let served = serve_with(options);
    let (ok, output) = run_c(&served);
    assert!(ok && output.starts_with("asked for 1 byte\n"), "{output}");

    small.write("book/lab/c/zero_filled.c", "int main(void) { return 3 }\n");
    let (ok, output) = run_c(&served);
    assert!(
        !ok && output.contains("zero_filled.c:1:") && output.contains("(The compiler exited with"),
        "{output}"
    );

    small.write("book/lab/c/zero_filled.c", "int main(void) { return 3; }\n");
    let (ok, output) = run_c(&served);
    assert!(
        !ok && output.contains("(The program exited with status 3.)"),
        "{output}"
    );
    let left = fs::read_dir(target.path()).expect("the target").count();
    assert_eq!(left, 0, "the programs are removed");
}

#[test]
fn a_missing_c_compiler_is_reported() {
    let small = SmallClone::new("# A page\n");
    let mut options = options(&small.root(), Limits::default());
    options.cc = "no-such-compiler".into();
    let (ok, output) = run_c(&serve_with(options));
    assert!(!ok);
    assert_eq!(
        output,
        "There is no C compiler: no-such-compiler was not found. Install gcc or clang."
    );
}

#[test]
fn one_program_runs_at_a_time() {
    let (small, served) = serve_script("touch begun; sleep 2", Limits::default());
    let first = Request::post(&served, "/live/run/zero_filled").open();
    until("it begins", || small.root().join("begun").exists());
    let second = Request::post(&served, "/live/run/zero_filled").send();
    assert_eq!(second.status, 429, "{}", second.body);
    drop(first);
}

#[test]
fn idle_connections_are_closed() {
    let small = SmallClone::new("# A page\n");
    let mut options = options(&small.root(), Limits::default());
    options.idle = Duration::from_secs(1);
    let served = serve_with(options);
    let get = format!("GET / HTTP/1.1\r\nHost: {}\r\n", served.address);
    // No request, half of a request, and a request that leaves the connection open.
    for text in [String::new(), get.clone(), format!("{get}\r\n")] {
        let mut stream = TcpStream::connect(served.address).expect("the server listens");
        let timeout = Some(Duration::from_secs(20));
        stream.set_read_timeout(timeout).expect("a timeout");
        write!(stream, "{text}").expect("the request is sent");
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        assert!(end.is_ok(), "{text:?}: {end:?}");
    }
    // A stream of events is not idle.
    let mut events = Events::of(&served);
    assert_eq!(events.next().0, "book");
    thread::sleep(Duration::from_secs(2));
    log_grading(&served.log, &[("by_hand", 1, 0)]);
    assert_eq!(events.next().0, "verdict");
}

/// The events of a connection, as they arrive.
struct Events(BufReader<TcpStream>);

impl Events {
    fn of(served: &Served) -> Events {
        let path = format!("/live/events?token={}", served.token);
        let stream = Request::get(served, &path).open();
        let timeout = Some(Duration::from_secs(30));
        stream.set_read_timeout(timeout).expect("a timeout");
        Events(BufReader::new(stream))
    }

    /// Returns the name and the data of the next event.
    fn next(&mut self) -> (String, String) {
        let (mut name, mut data) = (String::new(), String::new());
        loop {
            let mut line = String::new();
            assert!(
                self.0.read_line(&mut line).expect("an event") > 0,
                "the stream ended"
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

#[test]
fn verdicts_are_pushed_as_they_are_logged() {
    let small = SmallClone::new("# A page\n");
    let served = serve(&small.root(), Limits::default());
    let solution = Record::Solution {
        at: 0,
        exercise: "private-alloc".to_owned(),
    };
    served.log.append(&solution).expect("a line");
    log_grading(&served.log, &[("by_hand", 1, 3)]);
    let mut events = Events::of(&served);
    assert_eq!(events.next(), ("book".to_owned(), "1".to_owned()));
    let (name, data) = events.next();
    assert_eq!(name, "verdict");
    for part in [
        "\"exercise\":\"private-alloc\"",
        "\"passed\":1",
        "\"possible\":4",
    ] {
        assert!(data.contains(part), "{data}");
    }
    let torn = fs::OpenOptions::new().append(true).open(served.log.path());
    writeln!(torn.unwrap(), "{{\"torn\":").unwrap();
    log_grading(&served.log, &[("by_hand", 2, 2)]);
    let (_, data) = events.next();
    assert!(data.contains("\"passed\":2"), "{data}");
    // A new connection gets the latest verdict on each exercise.
    let mut late = Events::of(&served);
    assert_eq!(late.next().0, "book");
    assert!(late.next().1.contains("\"passed\":2"));
}

#[test]
fn the_book_is_rebuilt_after_an_edit_and_kept_after_a_mistake() {
    let small = SmallClone::new("# First\n");
    let served = serve(&small.root(), Limits::default());
    let mut events = Events::of(&served);
    assert_eq!(events.next().1, "1");
    let page = || Request::get(&served, "/page.html").send().body;
    small.write("book/src/page.md", "# Wrong\n\n```quiz\n```\n");
    thread::sleep(Duration::from_secs(1));
    assert!(page().contains("First"), "the last good build is gone");
    small.write("book/src/page.md", "# Second\n");
    assert_eq!(events.next(), ("book".to_owned(), "2".to_owned()));
    assert!(page().contains("Second"));
    // The learner's answers are not part of the book.
    small.write("exercises/private-alloc/src/lib.rs", "//! Mine.\n");
    thread::sleep(Duration::from_secs(1));
    small.write("book/src/page.md", "# Third\n");
    assert_eq!(events.next().1, "3");
    within(Duration::from_secs(5), "the third build", || {
        page().contains("Third")
    });
}

/// The program itself, which serves a small clone.
struct Program {
    child: Child,
    served: Served,
}

fn start_program(small: &SmallClone, stdout: Stdio) -> Child {
    Command::new(env!("CARGO_BIN_EXE_reader"))
        .args(["serve", "--port", "0"])
        .current_dir(small.root().join("book"))
        .env("CARGO", small.root().join("cargo"))
        .env_remove("WORKBOOK_HOME")
        .env_remove("WORKBOOK_ROOT")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

impl Program {
    /// Starts it in a subfolder of the clone, and reads its address and its token.
    fn start(small: &SmallClone) -> Program {
        let mut child = start_program(small, Stdio::piped());
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let address = line.split_once("http://").expect(&line).1;
        let address = address.split(' ').next().unwrap_or_default();
        let mut served = Served {
            address: address.parse().expect("an address"),
            token: String::new(),
            log: Log::in_folder(&small.root().join(".workbook")),
            here: None,
        };
        let page = Request::get(&served, "/page.html").send().body;
        let (_, token) = page.split_once("data-token=\"").expect("a token");
        served.token = token.split('"').next().unwrap_or_default().to_owned();
        Program { child, served }
    }
}

#[test]
fn the_program_serves_the_clone_that_it_is_started_in() {
    let small = SmallClone::new("# A page\n");
    small.script("cargo", "exit 1");
    let mut program = Program::start(&small);
    let mut events = Events::of(&program.served);
    assert_eq!(events.next().0, "book");
    log_grading(&program.served.log, &[("by_hand", 1, 0)]);
    assert_eq!(events.next().0, "verdict");
    program.child.kill().expect("the program runs");
    program.child.wait().expect("the exit status");
}

#[test]
fn a_signal_ends_the_server_with_its_lab_program() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let small = SmallClone::new("# A page\n");
        fake_cargo(
            &small,
            "setsid sleep 1000 & echo $! > child\necho $$ > leader\nsleep 1000",
        );
        let mut program = Program::start(&small);
        let pids = ["child", "leader"].map(|file| small.root().join(file));
        let _running = Request::post(&program.served, "/live/run/zero_filled").open();
        let complete = |file: &Path| fs::read_to_string(file).is_ok_and(|pid| pid.ends_with('\n'));
        until("the program runs", || {
            pids.iter().all(|file| complete(file))
        });
        let pid = Pid::from_raw(program.child.id().cast_signed());
        kill(pid, signal).expect("the server runs");
        let status = program.child.wait().expect("the exit status");
        assert!(status.success(), "{signal}: {status}");
        for file in &pids {
            let pid = fs::read_to_string(file).expect("a pid");
            assert!(!is_running(&pid), "{signal}: {} runs", file.display());
        }
        let connected = TcpStream::connect(program.served.address);
        assert!(connected.is_err(), "the port is still open");
    }
}

#[test]
fn a_full_standard_output_is_reported_and_does_not_stop_the_server() {
    let small = SmallClone::new("# A page\n");
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let mut child = start_program(&small, full.expect("/dev/full").into());
    let mut line = String::new();
    let stderr = child.stderr.take().expect("a pipe");
    BufReader::new(stderr).read_line(&mut line).expect("a line");
    assert!(line.contains("standard output failed"), "{line}");
    let (_, address) = line.split_once("http://").expect("an address");
    let address = address.split(',').next().unwrap_or_default();
    assert!(TcpStream::connect(address).is_ok());
    // Standard error is closed by now, and a mistake must not end the server.
    small.write("book/src/page.md", "```quiz\n```\n");
    thread::sleep(Duration::from_secs(1));
    assert!(TcpStream::connect(address).is_ok());
    child.kill().expect("the program runs");
    child.wait().expect("the exit status");
}
