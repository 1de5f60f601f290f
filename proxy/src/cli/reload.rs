//! `sluicegate reload`: asks the running process to load its configuration anew, waits, and says what came of it.

use std::io::Write;
use std::time::Duration;

use super::client::{self, ClientError};
use crate::admin::ReloadAnswer;
use crate::config::AdminBind;

const EXIT_DONE: u8 = 0;
const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_UNREACHABLE: u8 = 69;
const EXIT_CONFIG: u8 = 78;

/// Compiling many modules and waiting for first checks may take a while.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Load the configuration anew, without losing a connection
#[derive(Debug, Clone, clap::Args)]
pub struct ReloadArgs {
    /// Admin address of the running process: the path of its socket, or a loopback address with port
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,
    /// The configuration that says where the running process is reached
    #[command(flatten)]
    pub sources: super::config::SourceArgs,
}

/// Asks at `args.admin`, else at `address` (what the configuration or its default says). Answers the exit code: 0 done,
/// 78 the configuration is wrong (its diagnostics were written to `err`), 69 nobody is there, 2 `--admin` is no address,
/// 1 anything else.
pub fn run(args: &ReloadArgs, address: &AdminBind, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let address = match args.admin.as_deref().map(client::parse_address) {
        None => address.clone(),
        Some(Ok(address)) => address,
        Some(Err(why)) => return fail(err, &why),
    };
    let answer = match client::call(&address, "POST", "/reload", TIMEOUT) {
        Ok(answer) => answer,
        Err(why) => return fail(err, &why),
    };
    // Output that nobody reads is no reason to change the exit code.
    match serde_json::from_slice::<ReloadAnswer>(&answer.body) {
        Ok(ReloadAnswer::Done(done)) => {
            if !done.text.is_empty() {
                let _ = writeln!(err, "{}", done.text.trim_end());
            }
            let _ = writeln!(out, "{done}");
            EXIT_DONE
        }
        Ok(ReloadAnswer::Refused(refused)) => {
            let _ = writeln!(
                err,
                "{}\ngeneration {} goes on: nothing was changed",
                refused.text.trim_end(),
                refused.generation
            );
            EXIT_CONFIG
        }
        Err(_) => {
            let body = String::from_utf8_lossy(&answer.body);
            let at = client::describe(&address);
            let _ = writeln!(
                err,
                "error: {at} answered {}: {}",
                answer.status,
                body.trim_end()
            );
            EXIT_FAILED
        }
    }
}

fn fail(err: &mut dyn Write, why: &ClientError) -> u8 {
    let _ = writeln!(err, "error: {why}");
    match why {
        ClientError::Unreachable { .. } => EXIT_UNREACHABLE,
        ClientError::Address(_) => EXIT_USAGE,
        ClientError::NoAnswer { .. } | ClientError::NotOurs { .. } => EXIT_FAILED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    fn reload(path: &Path) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = ReloadArgs {
            admin: None,
            sources: Default::default(),
        };
        let code = run(&args, &AdminBind::Unix(path.into()), &mut out, &mut err);
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (code, text(out), text(err))
    }

    fn answered(status: &str, body: &str) -> (u8, String, String) {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("admin.sock");
        let listener = UnixListener::bind(&path).expect("bind");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().expect("accept");
                let mut request = [0; 1024];
                let n = stream.read(&mut request).expect("read");
                assert!(request[..n].starts_with(b"POST /reload HTTP/1.1\r\n"));
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .expect("write");
            });
            reload(&path)
        })
    }

    #[test]
    fn done() {
        let body = r#"{"ok":true,"from":7,"to":8,"took_ms":41,"changed":{"listeners":0,"filters":1,"pools":2}}"#;
        let (code, out, err) = answered("200 OK", body);
        assert_eq!(
            out,
            "generation 7 \u{2192} 8 (1 filter, 2 pools changed) in 41 ms\n"
        );
        assert_eq!((code, err.as_str()), (0, ""));
    }

    #[test]
    fn done_with_warnings() {
        let body = r#"{"ok":true,"from":7,"to":8,"took_ms":41,"changed":{"listeners":0,"filters":0,"pools":0,"sections":["telemetry"]},"warnings":[{"line":3}],"text":"warning[odd]: a\n"}"#;
        let (code, out, err) = answered("200 OK", body);
        assert_eq!(
            out,
            "generation 7 \u{2192} 8 (telemetry changed) in 41 ms\n"
        );
        assert_eq!((code, err.as_str()), (0, "warning[odd]: a\n"));
    }

    #[test]
    fn refused() {
        let body =
            r#"{"ok":false,"generation":7,"diagnostics":[],"text":"error[unknown-pool]: no\n"}"#;
        let (code, out, err) = answered("422 Unprocessable Entity", body);
        assert_eq!(
            err,
            "error[unknown-pool]: no\ngeneration 7 goes on: nothing was changed\n"
        );
        assert_eq!((code, out.as_str()), (78, ""));
    }

    #[test]
    fn somebody_else_answers() {
        assert_eq!(answered("404 Not Found", "what?").0, 1);
    }

    #[test]
    fn nobody_is_there() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("admin.sock");
        let (code, _, err) = reload(&path);
        assert_eq!(code, 69);
        assert!(err.contains(&path.display().to_string()), "{err}");
        assert!(err.contains("Is it running?"), "{err}");
    }
}
