//! `sluicegate demo`: backends, listeners and filters in one process on free loopback ports, and the commands to try.

use super::surroundings;
use super::{output, report, run};
use crate::app::{Ready, RunOptions};
use crate::config::Input;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Response};
use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot;

#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Run the commands (with curl), compare what they answer, and exit
    #[arg(long)]
    self_test: bool,
}

pub fn run(args: DemoArgs) -> u8 {
    let place = match Place::new() {
        Ok(place) => place,
        Err(error) => return report::fail(format_args!("cannot set the demo up: {error:#}")),
    };
    let backends: Result<Vec<SocketAddr>, _> = ["web1", "web2"].into_iter().map(backend).collect();
    let text = match backends {
        Ok(backends) => configuration(&backends, &place.dir),
        Err(error) => return report::fail(format_args!("cannot start a backend: {error}")),
    };
    let inputs = vec![Input::Text {
        name: "demo.yaml".into(),
        text: text.clone(),
    }];
    let builder = match surroundings::builder(inputs) {
        Ok(builder) => builder,
        Err(error) => {
            return report::fail(format_args!("cannot tell the working directory: {error}"));
        }
    };
    let (stop, stopped) = oneshot::channel();
    let failed = Arc::new(Mutex::new(None));
    let outcome = failed.clone();
    let on_ready = move |ready: &Ready| {
        let trials = trials(ready);
        say(format_args!("# The configuration of this demo:\n{text}"));
        if !args.self_test {
            say(format_args!(
                "# Try, in another terminal (end the demo with Ctrl-C):\n"
            ));
            for trial in &trials {
                say(format_args!(
                    "# {}\n{}\n",
                    trial.about,
                    trial.command_line()
                ));
            }
            // Nobody asks this demo to stop but a signal.
            std::mem::forget(stop);
            return;
        }
        std::thread::spawn(move || {
            let wrong = trials.iter().filter(|trial| !trial.run()).count();
            let good = trials.len() - wrong;
            say(format_args!("{good} of {} as expected", trials.len()));
            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(wrong);
            let _ = stop.send(());
        });
    };
    let options = RunOptions {
        watch: false,
        on_ready: Some(Box::new(on_ready)),
        stop: Some(stopped),
    };
    let code = run::serve(builder, options);
    drop(place);
    match *failed.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(0) | None => code,
        Some(_) => report::FAILED,
    }
}

/// A line on standard output. The demo goes on when nobody reads.
fn say(line: std::fmt::Arguments<'_>) {
    let mut out = output::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A directory of the demo's own, gone with it.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn new() -> anyhow::Result<Self> {
        let dir = std::env::temp_dir().join(format!("sluicegate-demo-{}", std::process::id()));
        std::fs::create_dir(&dir)?;
        let place = Self { dir };
        let made = crate::tls::self_signed(&["localhost".to_owned(), "127.0.0.1".to_owned()], 30)?;
        std::fs::write(place.dir.join("cert.pem"), made.cert_pem)?;
        std::fs::write(place.dir.join("key.pem"), made.key_pem)?;
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A backend that answers with its name and what it was told about the client.
fn backend(name: &'static str) -> std::io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let served: std::io::Result<()> = loop {
                    let stream = match listener.accept().await {
                        Ok((stream, _)) => stream,
                        Err(error) => break Err(error),
                    };
                    tokio::spawn(async move {
                        let answer = hyper::service::service_fn(move |request| async move {
                            Ok::<_, Infallible>(answer(name, &request))
                        });
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(hyper_util::rt::TokioIo::new(stream), answer)
                            .await;
                    });
                };
                served
            })
        })?;
    Ok(address)
}

fn answer(name: &str, request: &Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
    let mut text = format!("{name}\n");
    if request.uri().path() == "/headers" {
        for field in ["x-forwarded-for", "x-forwarded-by", "x-forwarded-proto"] {
            for value in request.headers().get_all(field) {
                text.push_str(&format!(
                    "{field}: {}\n",
                    String::from_utf8_lossy(value.as_bytes())
                ));
            }
        }
    }
    Response::new(Full::new(Bytes::from(text)))
}

fn configuration(backends: &[SocketAddr], dir: &Path) -> String {
    let dir = dir.display();
    let (web1, web2) = (backends[0], backends[1]);
    format!(
        r#"pools:
  web:
    endpoints: ["{web1}", "{web2}"]
    check: {{http: {{path: /, status: 200}}}}
filters:
  no-badcurl:
    module: builtin:ua-block
    settings: {{deny: [badcurl], action: drop}}
  by:
    module: builtin:headers
    settings:
      request: [{{append: x-forwarded-by, value: "${{server.address}}:${{server.port}}"}}]
listeners:
  - name: plain
    bind: 127.0.0.1:0
    protocol: http
    filters: [no-badcurl, by]
    pool: web
  - name: secure
    bind: 127.0.0.1:0
    protocol: http
    tls: {{certificates: [{{cert: {dir}/cert.pem, key: {dir}/key.pem}}]}}
    filters: [no-badcurl, by]
    pool: web
admin: {{bind: "unix:{dir}/admin.sock"}}
telemetry: {{access-log: off}}
"#
    )
}

/// One command of the demo and what it should do.
struct Trial {
    about: &'static str,
    arguments: Vec<String>,
    expected: Expected,
}

enum Expected {
    /// Standard output has all of these.
    Prints(Vec<String>),
    /// curl's exit code.
    Code(i32),
}

fn trials(ready: &Ready) -> Vec<Trial> {
    let port = |name: &str| {
        let addresses = ready
            .listeners
            .iter()
            .find(|(listener, _)| &**listener == name)
            .map(|(_, a)| a.as_slice());
        addresses
            .and_then(|a| a.first())
            .map_or(0, SocketAddr::port)
    };
    let (plain, secure) = (port("plain"), port("secure"));
    let curl = |arguments: &[&str]| arguments.iter().map(|a| a.to_string()).collect::<Vec<_>>();
    let prints = |words: &[&str]| Expected::Prints(words.iter().map(|w| w.to_string()).collect());
    vec![
        Trial {
            about: "round robin over two backends",
            arguments: curl(&[
                "-s",
                &format!("http://127.0.0.1:{plain}/"),
                &format!("http://127.0.0.1:{plain}/"),
            ]),
            expected: prints(&["web1\n", "web2\n"]),
        },
        Trial {
            about: "the backend learns who asked, and through which address",
            arguments: curl(&["-s", &format!("http://127.0.0.1:{plain}/headers")]),
            expected: prints(&[
                "x-forwarded-for: 127.0.0.1",
                &format!("x-forwarded-by: 127.0.0.1:{plain}"),
            ]),
        },
        Trial {
            about: "a filter drops this client without a byte: curl says (52) Empty reply from server",
            arguments: curl(&[
                "-sS",
                "-A",
                "badcurl",
                &format!("http://127.0.0.1:{plain}/"),
            ]),
            expected: Expected::Code(52),
        },
        Trial {
            about: "TLS and HTTP/2 in front of the same backends",
            arguments: curl(&[
                "-sk",
                "-w",
                "HTTP/%{http_version}\\n",
                &format!("https://127.0.0.1:{secure}/"),
            ]),
            expected: prints(&["web", "HTTP/2"]),
        },
    ]
}

impl Trial {
    fn command_line(&self) -> String {
        let quoted = self.arguments.iter().map(|argument| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=".contains(c);
            if argument.chars().all(plain) {
                argument.clone()
            } else {
                format!("'{argument}'")
            }
        });
        format!("curl {}", quoted.collect::<Vec<_>>().join(" "))
    }

    /// Runs the command and prints the transcript; true when it did what it should.
    fn run(&self) -> bool {
        say(format_args!("# {}\n$ {}", self.about, self.command_line()));
        let output = match Command::new("curl")
            .args(["--noproxy", "*", "--max-time", "10"])
            .args(&self.arguments)
            .output()
        {
            Ok(output) => output,
            Err(error) => {
                say(format_args!("curl could not be run: {error}\n"));
                return false;
            }
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let good = match &self.expected {
            Expected::Prints(words) => words.iter().all(|word| text.contains(word.as_str())),
            Expected::Code(code) => output.status.code() == Some(*code),
        };
        let remark = if good { "" } else { "NOT AS EXPECTED\n" };
        say(format_args!("{text}{errors}{remark}"));
        good
    }
}
