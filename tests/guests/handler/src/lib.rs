//! A handler with a behaviour for each path.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam,
};
use wasip2::io::streams::{OutputStream, StreamError};

struct Handler;

wasip2::http::proxy::export!(Handler);

/// What one build answers differently from another.
const MARK: &str = "the-mark-is-one";
const PIECE: u64 = 16 * 1024;

impl Guest for Handler {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        match path.as_str() {
            "/echo" => echo(&request, answer),
            "/fields" => {
                let fields = request.headers().entries();
                let mut text = format!(
                    "{:?} {:?} {:?}\n",
                    request.method(),
                    request.scheme(),
                    request.authority()
                );
                for (name, value) in fields {
                    text += &format!("{name}: {}\n", String::from_utf8_lossy(&value));
                }
                let scheme = format!("{:?}", request.scheme());
                let more = [("x-one", "1"), ("x-two", "2"), ("x-scheme", &*scheme)];
                say(answer, &more, &text);
            }
            "/trap" => panic!("before the head"),
            "/trap-after" => {
                let (body, stream) = begin(answer, &[]);
                let _ = stream.blocking_write_and_flush(b"half");
                let _body = body;
                panic!("after the head");
            }
            "/short" => {
                let (body, stream) = begin(answer, &[("content-length", "10")]);
                let _ = stream.blocking_write_and_flush(b"half");
                drop(stream);
                let _ = OutgoingBody::finish(body, None);
            }
            "/silent" => {}
            "/loop" => {
                let mut n = 0u64;
                loop {
                    n = std::hint::black_box(n.wrapping_add(1));
                }
            }
            "/sleep" => {
                println!("begins to sleep");
                wasip2::clocks::monotonic_clock::subscribe_duration(60_000_000_000).block();
                println!("slept");
            }
            "/grow" => {
                let mut all: Vec<Vec<u8>> = Vec::new();
                for _ in 0..4096 {
                    all.push(vec![1; 1 << 20]);
                }
                say(answer, &[], &format!("{}", all.len()));
            }
            "/print" => {
                println!("one line\nand another");
                eprintln!("to stderr");
                say(answer, &[], "printed");
            }
            "/world" => {
                let variables = std::env::vars().count();
                let files = std::fs::read_dir("/").is_ok();
                let connected = std::net::TcpStream::connect("127.0.0.1:9").map_err(|e| e.kind());
                let outgoing = OutgoingRequest::new(Fields::new());
                let _ = outgoing.set_authority(Some("127.0.0.1:9"));
                let _ = outgoing.set_path_with_query(Some("/"));
                let asked = outgoing_handler::handle(outgoing, None).and_then(|future| {
                    future.subscribe().block();
                    match future.get() {
                        Some(Ok(answer)) => answer.map(|_| ()),
                        _ => Ok(()),
                    }
                });
                say(
                    answer,
                    &[],
                    &format!("{variables} {files} {connected:?} {asked:?}"),
                );
            }
            _ => say(answer, &[], MARK),
        }
    }
}

fn begin(answer: ResponseOutparam, fields: &[(&str, &str)]) -> (OutgoingBody, OutputStream) {
    let list = Fields::new();
    for (name, value) in fields {
        list.append(name, value.as_bytes()).expect("a field");
    }
    let response = OutgoingResponse::new(list);
    let body = response.body().expect("a body");
    ResponseOutparam::set(answer, Ok(response));
    let stream = body.write().expect("a stream");
    (body, stream)
}

fn say(answer: ResponseOutparam, fields: &[(&str, &str)], text: &str) {
    let (body, stream) = begin(answer, fields);
    for part in text.as_bytes().chunks(4096) {
        stream.blocking_write_and_flush(part).expect("write");
    }
    drop(stream);
    OutgoingBody::finish(body, None).expect("finish");
}

/// Streams the body back, and its trailers.
fn echo(request: &IncomingRequest, answer: ResponseOutparam) {
    let incoming = request.consume().expect("a body");
    let input = incoming.stream().expect("a stream");
    let (body, output) = begin(answer, &[("trailer", "x-sum")]);
    loop {
        match input.blocking_read(PIECE) {
            Ok(data) => {
                for part in data.chunks(4096) {
                    output.blocking_write_and_flush(part).expect("write");
                }
            }
            Err(StreamError::Closed) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    drop((input, output));
    let future = IncomingBody::finish(incoming);
    future.subscribe().block();
    let trailers = match future.get() {
        Some(Ok(Ok(trailers))) => trailers,
        _ => None,
    };
    OutgoingBody::finish(body, trailers).expect("finish");
}
