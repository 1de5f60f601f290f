//! Middleware of `wasi:http` 0.3 with a behaviour for each path; what has none goes to the handler behind it as it is.

use bindings::wasi::http::handler;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Trailers};
use wasip3::wit_bindgen::{FutureReader, StreamReader, StreamResult};
use wasip3::{spawn_local, wit_future, wit_stream};

mod bindings {
    wasip3::wit_bindgen::generate!({
        path: "wit",
        world: "test:guest/rest",
        runtime_path: "wasip3::wit_bindgen::rt",
        with: {
            "wasi:http/types@0.3.2": wasip3::http::types,
            "wasi:clocks/types@0.3.2": wasip3::clocks::types,
        },
        generate_all,
    });
}

struct Middleware;

wasip3::http::service::export!(Middleware);

/// What one build says differently from another.
const MARK: &str = "the-mark-is-one";
const PIECE: usize = 16 * 1024;

type End = Result<Option<Trailers>, ErrorCode>;

impl wasip3::exports::http::handler::Guest for Middleware {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        match path.as_str() {
            // Answers by itself.
            "/own" => Ok(say(200, MARK)),
            "/trap" => panic!("before it asks"),
            "/trap-after" => {
                let _ = handler::handle(request).await;
                panic!("after it was answered");
            }
            "/error" => Err(ErrorCode::InternalError(Some("of its own".into()))),
            // Another path, a field more, and a field more of the response.
            "/edit" => {
                let edited = copy(request, "/edited", &[("x-middleware", "asked")]);
                let response = handler::handle(edited).await?;
                Ok(with_field(response, "x-middleware", "answered"))
            }
            // Ends in the middle of the body that it sends.
            "/cut" => {
                let (mut output, contents) = wit_stream::new();
                let (end, trailers) = wit_future::new::<End>(|| Ok(None));
                spawn_local(async move {
                    output.write_all(b"half".to_vec()).await;
                    drop(end);
                    panic!("in the middle");
                });
                let request = rebuild(Fields::new(), "/cut-short", contents, trailers);
                handler::handle(request).await
            }
            // Upper case, both ways, piece by piece.
            "/shout" => {
                let (input, trailers) = body_of_request(request);
                let fields = Fields::new();
                let shouted = rebuild(fields, "/shouted", shout(input), trailers);
                let response = handler::handle(shouted).await?;
                let status = response.get_status_code();
                let (input, trailers) = body_of(response);
                let (answer, _) = Response::new(Fields::new(), Some(shout(input)), trailers);
                let _ = answer.set_status_code(status);
                Ok(answer)
            }
            // Twice, and the first answer is thrown away.
            "/twice" => {
                let first = handler::handle(get("/first")).await?;
                drop(first);
                handler::handle(get("/second")).await
            }
            // More often than it may.
            "/often" => {
                let mut answered = 0;
                for _ in 0..64 {
                    match handler::handle(get("/again")).await {
                        Ok(_) => answered += 1,
                        Err(ErrorCode::HttpRequestDenied) => break,
                        Err(error) => return Err(error),
                    }
                }
                Ok(say(200, &format!("{answered}")))
            }
            "/sleep" => {
                println!("begins to sleep");
                wasip3::clocks::monotonic_clock::wait_for(60_000_000_000).await;
                handler::handle(request).await
            }
            _ => handler::handle(request).await,
        }
    }
}

/// A request as it came, but for its path and a field more.
fn copy(request: Request, path: &str, more: &[(&str, &str)]) -> Request {
    let fields = Fields::from_list(&request.get_headers().copy_all()).expect("fields");
    for (name, value) in more {
        fields.append(name, value.as_bytes()).expect("a field");
    }
    let parts = request_parts(&request);
    let (input, trailers) = body_of_request(request);
    let (copy, _) = Request::new(fields, Some(input), trailers, None);
    parts.put(&copy);
    let _ = copy.set_path_with_query(Some(path));
    copy
}

struct Parts {
    method: Method,
    scheme: Option<wasip3::http::types::Scheme>,
    authority: Option<String>,
}

impl Parts {
    fn put(&self, request: &Request) {
        let _ = request.set_method(&self.method);
        let _ = request.set_scheme(self.scheme.as_ref());
        let _ = request.set_authority(self.authority.as_deref());
    }
}

fn request_parts(request: &Request) -> Parts {
    Parts {
        method: request.get_method(),
        scheme: request.get_scheme(),
        authority: request.get_authority(),
    }
}

fn rebuild(
    fields: Fields,
    path: &str,
    body: StreamReader<u8>,
    trailers: FutureReader<End>,
) -> Request {
    let (request, _) = Request::new(fields, Some(body), trailers, None);
    let _ = request.set_method(&Method::Post);
    let _ = request.set_authority(Some("shouted.test"));
    let _ = request.set_path_with_query(Some(path));
    request
}

fn get(path: &str) -> Request {
    let (_, trailers) = wit_future::new::<End>(|| Ok(None));
    let (request, _) = Request::new(Fields::new(), None, trailers, None);
    let _ = request.set_authority(Some("own.test"));
    let _ = request.set_path_with_query(Some(path));
    request
}

fn with_field(response: Response, name: &str, value: &str) -> Response {
    let fields = Fields::from_list(&response.get_headers().copy_all()).expect("fields");
    fields.append(name, value.as_bytes()).expect("a field");
    let status = response.get_status_code();
    let (input, trailers) = body_of(response);
    let (answer, _) = Response::new(fields, Some(input), trailers);
    let _ = answer.set_status_code(status);
    answer
}

fn body_of_request(request: Request) -> (StreamReader<u8>, FutureReader<End>) {
    let (_, whole) = wit_future::new::<Result<(), ErrorCode>>(|| Ok(()));
    Request::consume_body(request, whole)
}

fn body_of(response: Response) -> (StreamReader<u8>, FutureReader<End>) {
    let (_, whole) = wit_future::new::<Result<(), ErrorCode>>(|| Ok(()));
    Response::consume_body(response, whole)
}

fn shout(mut input: StreamReader<u8>) -> StreamReader<u8> {
    let (mut output, read) = wit_stream::new();
    spawn_local(async move {
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            let (result, mut data) = input.read(piece).await;
            let StreamResult::Complete(_) = result else {
                break;
            };
            data.make_ascii_uppercase();
            data = output.write_all(data).await;
            if !data.is_empty() {
                break;
            }
            piece = data;
            piece.reserve(PIECE);
        }
    });
    read
}

fn say(status: u16, text: &str) -> Response {
    let (mut output, contents) = wit_stream::new();
    let (end, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(Fields::new(), Some(contents), trailers);
    let _ = response.set_status_code(status);
    let text = text.as_bytes().to_vec();
    spawn_local(async move {
        output.write_all(text).await;
        drop(output);
        let _ = end.write(Ok(None)).await;
    });
    response
}
