//! A handler of `wasi:http` 0.3 with a behaviour for each path.

use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme, Trailers};
use wasip3::http::{client, types};
use wasip3::wit_bindgen::{FutureReader, FutureWriter, StreamReader, StreamResult, StreamWriter};
use wasip3::{spawn_local, wit_future, wit_stream};

struct Service;

wasip3::http::service::export!(Service);

/// What one build answers differently from another.
const MARK: &str = "the-mark-is-one";
const PIECE: usize = 16 * 1024;

type End = Result<Option<Trailers>, ErrorCode>;

impl wasip3::exports::http::handler::Guest for Service {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        match path.as_str() {
            "/echo" => {
                let (input, trailers) = body_of(request);
                let (response, output, end) = begin(&[("trailer", "x-sum")]);
                spawn_local(echo(input, trailers, output, end));
                Ok(response)
            }
            // The host's own stream goes back as it came: no piece of it is seen here.
            "/pass" => {
                let (input, trailers) = body_of(request);
                Ok(Response::new(Fields::new(), Some(input), trailers).0)
            }
            "/fields" => {
                let mut text = format!(
                    "{:?} {:?} {:?}\n",
                    request.get_method(),
                    request.get_scheme(),
                    request.get_authority()
                );
                for (name, value) in request.get_headers().copy_all() {
                    text += &format!("{name}: {}\n", String::from_utf8_lossy(&value));
                }
                let scheme = format!("{:?}", request.get_scheme());
                let more = [("x-one", "1"), ("x-two", "2"), ("x-scheme", &*scheme)];
                Ok(say(&more, &text))
            }
            "/trap" => panic!("before the head"),
            "/trap-after" => {
                let (response, mut output, _end) = begin(&[]);
                spawn_local(async move {
                    output.write_all(b"half".to_vec()).await;
                    panic!("after the head");
                });
                Ok(response)
            }
            "/short" => Ok(say(&[("content-length", "10")], "half")),
            "/long" => Ok(say(&[("content-length", "2")], "half")),
            "/error" => Err(ErrorCode::InternalError(Some("of its own".into()))),
            "/broken" => {
                let (response, mut output, end) = begin(&[]);
                spawn_local(async move {
                    output.write_all(b"half".to_vec()).await;
                    drop(output);
                    let _ = end.write(Err(ErrorCode::HttpResponseIncomplete)).await;
                });
                Ok(response)
            }
            // A body that nobody will ever end.
            "/forgotten" => {
                let (response, output, end) = begin(&[]);
                std::mem::forget((output, end));
                Ok(response)
            }
            "/silent" => std::process::exit(0),
            "/loop" => {
                let mut n = 0u64;
                loop {
                    n = std::hint::black_box(n.wrapping_add(1));
                }
            }
            // Computes without ever doing so for long.
            "/yield" => loop {
                wasip3::wit_bindgen::yield_async().await;
            },
            "/sleep" => {
                println!("begins to sleep");
                wasip3::clocks::monotonic_clock::wait_for(60_000_000_000).await;
                println!("slept");
                Ok(say(&[], "awake"))
            }
            "/grow" => {
                let mut all: Vec<Vec<u8>> = Vec::new();
                for _ in 0..4096 {
                    all.push(vec![1; 1 << 20]);
                }
                Ok(say(&[], &format!("{}", all.len())))
            }
            // More at one time than an instance may have.
            "/streams" => {
                let mut all = Vec::new();
                for _ in 0..100_000 {
                    all.push(wit_stream::new::<u8>());
                }
                Ok(say(&[], &format!("{}", all.len())))
            }
            "/tasks" => {
                for _ in 0..100_000 {
                    let wait = wasip3::clocks::monotonic_clock::wait_for(60_000_000_000);
                    spawn_local(wait);
                }
                wasip3::clocks::monotonic_clock::wait_for(60_000_000_000).await;
                Ok(say(&[], "waited"))
            }
            "/random" => {
                let bytes = wasip3::random::random::get_random_bytes(u64::MAX);
                Ok(say(&[], &format!("{}", bytes.len())))
            }
            // Never stops; what it says while the client does not read is what the proxy would have to hold.
            "/endless" => {
                let (response, mut output, end) = begin(&[]);
                spawn_local(async move {
                    let mut written = 0;
                    while output.write_all(vec![b'x'; 16 * PIECE]).await.is_empty() {
                        written += 16 * PIECE;
                        eprintln!("wrote {written}");
                    }
                    drop(end);
                });
                Ok(response)
            }
            "/print" => {
                println!("one line\nand another");
                eprintln!("to stderr");
                let (mut lines, read) = wit_stream::new();
                let printed = wasip3::cli::stdout::write_via_stream(read);
                lines.write_all(b"by a stream\n".to_vec()).await;
                drop(lines);
                let _ = printed.await;
                Ok(say(&[], "printed"))
            }
            "/world" => {
                let variables = std::env::vars().count();
                let files = std::fs::read_dir("/").is_ok();
                let connected = std::net::TcpStream::connect("127.0.0.1:9").map_err(|e| e.kind());
                let (_, no_trailers) = wit_future::new::<End>(|| Ok(None));
                let (asked, _) = Request::new(Fields::new(), None, no_trailers, None);
                let _ = asked.set_scheme(Some(&Scheme::Http));
                let _ = asked.set_authority(Some("127.0.0.1:9"));
                let _ = asked.set_path_with_query(Some("/"));
                let asked = client::send(asked).await.map(|_| ());
                Ok(say(
                    &[],
                    &format!("{variables} {files} {connected:?} {asked:?}"),
                ))
            }
            _ => Ok(say(&[], MARK)),
        }
    }
}

fn body_of(request: Request) -> (StreamReader<u8>, FutureReader<End>) {
    let (_, whole) = wit_future::new::<Result<(), ErrorCode>>(|| Ok(()));
    Request::consume_body(request, whole)
}

fn begin(fields: &[(&str, &str)]) -> (Response, StreamWriter<u8>, FutureWriter<End>) {
    let list = Fields::new();
    for (name, value) in fields {
        list.append(name, value.as_bytes()).expect("a field");
    }
    let (output, contents) = wit_stream::new();
    let (end, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = types::Response::new(list, Some(contents), trailers);
    (response, output, end)
}

fn say(fields: &[(&str, &str)], text: &str) -> Response {
    let (response, mut output, end) = begin(fields);
    let text = text.as_bytes().to_vec();
    spawn_local(async move {
        output.write_all(text).await;
        drop(output);
        let _ = end.write(Ok(None)).await;
    });
    response
}

/// Streams the body back, and its trailers.
async fn echo(
    mut input: StreamReader<u8>,
    trailers: FutureReader<End>,
    mut output: StreamWriter<u8>,
    end: FutureWriter<End>,
) {
    let mut piece = Vec::with_capacity(PIECE);
    loop {
        let (read, mut data) = input.read(piece).await;
        if let StreamResult::Complete(_) = read {
            data = output.write_all(data).await;
            assert!(data.is_empty(), "the client left");
        } else {
            break;
        }
        piece = data;
        piece.reserve(PIECE);
    }
    drop((input, output));
    let _ = end.write(trailers.await).await;
}
