//! An HTTP server that answers at once, does the work of each request in the background, and loses none of it when it
//! stops.
//!
//! ```text
//! $ cargo run --release --example graceful_server
//! ```
//!
//! sends itself 51 requests and, when half of their jobs have ended, SIGTERM. Every request was answered before its job
//! was done; all 51 jobs end before the process does.
//!
//! ```text
//! $ cargo run --release --example graceful_server -- --port 8080
//! ```
//!
//! serves on that port of the loopback interface (0: a free one, which it prints) until SIGTERM, SIGINT or SIGHUP comes,
//! or a request for `/shutdown`. Every other request starts a job. A second Ctrl-C ends it at once, jobs and all.
//!
//! How it stops, in order:
//!
//! 0. The signal requests the shutdown and leaves the end to `main`, which has a report to print.
//! 1. The hook `stop the server` ends the loop in [`serve`].
//! 2. The hold `requests in flight` keeps the pool open until the loop has answered what it had received.
//! 3. The pool drains, and a progress bar on stderr shows how far it is. (No bar where stderr is not a terminal.)
//! 4. The report is printed, and its verdict is the exit code.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::error::Error;
use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use tiny_http::{Request, Response, Server};
use winddown::{Phase, Pool, Registry};

const USAGE: &str = "usage: graceful_server [--port PORT]";

/// How many requests the program sends itself.
const REQUESTS: usize = 51;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let port = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => None,
        ["--port", port] => match port.parse() {
            Ok(port) => Some(port),
            Err(error) => return usage(&format!("{port}: {error}")),
        },
        [argument, ..] => return usage(&format!("{argument}: not understood")),
    };
    run(port).unwrap_or_else(|error| {
        eprintln!("graceful_server: {error}");
        ExitCode::FAILURE
    })
}

fn usage(error: &str) -> ExitCode {
    eprintln!("graceful_server: {error}\n{USAGE}");
    ExitCode::from(2)
}

/// Serves until the shutdown and prints its report.
fn run(port: Option<u16>) -> Result<ExitCode> {
    #[cfg(feature = "signals")]
    {
        use winddown::signals::{Builder, OnSignal};
        Builder::new().on_signal(OnSignal::Request).install()?;
    }
    // A little less than the patience of what would kill the process: 30 s in Kubernetes.
    winddown::set_deadline(Some(Duration::from_secs(25)));
    let pool = Pool::builder().name("jobs").max_threads(16).build()?;
    let server = Server::http((Ipv4Addr::LOCALHOST, port.unwrap_or(0)))
        .map_err(|error| format!("no server: {error}"))?;
    let server = Arc::new(server);
    let address = server.server_addr().to_ip().ok_or("the server has no IP address")?;
    winddown::before_join("stop the server", {
        let server = server.clone();
        move || server.unblock()
    })?;
    let bar = ProgressBar::hidden(); // Until there is something to show.
    print(&bar, format_args!("listening on http://{address}"));

    let (ended, has_ended) = channel();
    let client = port.is_none().then(|| thread::spawn(move || be_the_client(address, &has_ended)));
    serve(server, &pool, &bar, &ended)?;
    winddown::request_shutdown(); // It has begun already, unless the listener failed.
    show_drain(&bar);
    if let Some(client) = client {
        client.join().map_err(|_| "the client panicked")??;
    }
    let report = winddown::wait_finished();
    print(&bar, &report);
    Ok(ExitCode::from(&report))
}

/// Answers requests until the hook stops the server. Dropping that then closes the port.
///
/// Each job tells `ended` when it has.
fn serve(server: Arc<Server>, pool: &Pool, bar: &ProgressBar, ended: &Sender<()>) -> Result<()> {
    let _hold = winddown::hold("requests in flight")?;
    let mut jobs = 0;
    for request in server.incoming_requests() {
        if request.url() == "/shutdown" {
            winddown::request_shutdown();
            answer(request, 200, "stopping\n");
            continue;
        }
        let (n, bar, ended) = (jobs + 1, bar.clone(), ended.clone());
        let work = move || {
            job(n, &bar);
            let _ = ended.send(()); // Only this program's own client listens.
        };
        // Accepted before it is answered: only the deadline could keep the job from running now.
        match pool.execute(work) {
            Ok(()) => {
                jobs = n;
                answer(request, 202, &format!("job {n} accepted\n"));
            }
            Err(refused) => answer(request, 503, &format!("{refused}\n")),
        }
    }
    Ok(())
}

fn answer(request: Request, status: u16, text: &str) {
    // A client that has gone away is no reason to stop.
    let _ = request.respond(Response::from_string(text).with_status_code(status));
}

/// The work that a request leaves behind: a mail to send, a picture to scale.
fn job(n: usize, bar: &ProgressBar) {
    winddown::task::set_label(format!("job {n}"));
    print(bar, format_args!("starting {n}"));
    thread::sleep(Duration::from_millis(200)); // The work is simulated: this is how long it takes.
    print(bar, format_args!("ending {n}"));
}

/// Prints a line above the bar. A reader that has gone away is no reason to stop, so this does not panic.
fn print(bar: &ProgressBar, line: impl Display) {
    bar.suspend(|| drop(writeln!(io::stdout(), "{line}")));
}

/// Shows how far the drain is, until it is over.
fn show_drain(bar: &ProgressBar) {
    let registry = Registry::global();
    let total = registry.progress().tasks_left;
    bar.set_length(total);
    let style = ProgressStyle::with_template("draining {wide_bar} {pos}/{len} jobs");
    bar.set_style(style.expect("the template is valid"));
    bar.set_draw_target(ProgressDrawTarget::stderr());
    while registry.phase() < Phase::Finished {
        bar.set_position(total.saturating_sub(registry.progress().tasks_left));
        thread::sleep(Duration::from_millis(20));
    }
    bar.finish_and_clear();
}

/// Sends requests, one after the other, and has the server stop when half of their jobs have ended.
fn be_the_client(address: SocketAddr, ended: &Receiver<()>) -> Result<()> {
    let sent = (1..=REQUESTS).try_for_each(|_| {
        let answer = get(address, "/job")?;
        match answer.starts_with("HTTP/1.1 202 ") {
            true => Ok(()),
            false => Err(format!("unexpected answer: {answer}").into()),
        }
    });
    if sent.is_ok() {
        ended.iter().take(REQUESTS / 2).for_each(drop);
    }
    stop();
    sent
}

/// Does to this process what a supervisor does to stop it.
#[cfg(all(unix, feature = "signals"))]
#[allow(unsafe_code)]
fn stop() {
    // SAFETY: sends a signal, for which a handler is installed.
    unsafe { libc::kill(libc::getpid(), libc::SIGTERM) };
}

/// Where there is no SIGTERM, or nobody handles it.
#[cfg(not(all(unix, feature = "signals")))]
fn stop() {
    winddown::request_shutdown();
}

/// Sends one request over a connection of its own and returns the answer.
fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
