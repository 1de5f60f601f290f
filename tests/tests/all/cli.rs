//! The verbs that are no scenario of their own: what they print, and their exit codes.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::{Raw, curl, get};
use sluicegate_tests::proxy::{Proxy, command, sluicegate};
use sluicegate_tests::wait::{DEADLINE, eventually};

#[test]
fn the_demo_does_what_it_says() {
    let got = sluicegate(&["demo", "--self-test"]);
    assert_eq!(got.code, 0, "{}{}", got.stdout, got.stderr);
    assert!(
        got.stdout.contains("(52) Empty reply from server"),
        "{}",
        got.stdout
    );
    assert!(
        got.stdout.ends_with("4 of 4 as expected\n"),
        "{}",
        got.stdout
    );
}

#[test]
fn a_proxy_needs_no_file() {
    let backends = ["web1", "web2"].map(Backend::http);
    let [web1, web2] = backends.each_ref().map(|b| b.address().to_string());
    let bind = Addresses::new().free();
    let block = "builtin:ua-block={\"deny\": [\"badcurl\"]}";
    let _proxy = Running::start(&[
        "proxy",
        "--to",
        &web1,
        "--to",
        &web2,
        "--listen",
        &bind.to_string(),
        "--filter",
        block,
    ]);
    let got = eventually(DEADLINE, || std::net::TcpStream::connect(bind).is_ok());
    assert!(got, "nothing listens");
    let mut answers = [(); 2].map(|()| get(bind, "/").expect("an answer").text());
    answers.sort();
    assert_eq!(answers, ["web1", "web2"]);
    assert_eq!(
        curl(&["-A", "badcurl", &format!("http://{bind}/")]).code,
        52
    );
}

#[test]
fn a_proxy_of_bytes() {
    let echo = Backend::echo();
    let bind = Addresses::new().free();
    let to = echo.address().to_string();
    let _proxy = Running::start(&["proxy", "--tcp", "--to", &to, "--listen", &bind.to_string()]);
    let up = eventually(DEADLINE, || std::net::TcpStream::connect(bind).is_ok());
    assert!(up, "nothing listens");
    let mut raw = Raw::connect(bind);
    raw.send("ping").expect("sent");
    assert_eq!(raw.exactly(4).expect("an echo"), b"ping");
}

#[test]
fn a_proxy_says_what_is_wrong_with_its_arguments() {
    let none = sluicegate(&["proxy"]);
    assert_eq!(none.code, 2);
    let to = ["proxy", "--to", "127.0.0.1:1"];
    let filter = sluicegate(&[&to[..], &["--filter", "builtin:ua-block={deny"]].concat());
    assert_eq!(filter.code, 2);
    assert!(
        filter
            .stderr
            .contains("--filter builtin:ua-block: the settings are not JSON"),
        "{}",
        filter.stderr
    );
    let listen = sluicegate(&[&to[..], &["--listen", "nowhere"]].concat());
    assert_eq!(listen.code, 78, "{}", listen.stderr);
    assert!(
        listen.stderr.contains("--listen: \"nowhere\""),
        "{}",
        listen.stderr
    );
    let to = sluicegate(&["proxy", "--to", "nowhere"]);
    assert!(to.stderr.contains("--to: \"nowhere\""), "{}", to.stderr);
}

#[test]
fn an_address_that_is_taken_is_an_error_and_not_a_hang() {
    let (web1, taken) = (Backend::http("web1"), Backend::http("taken"));
    let (to, listen) = (web1.address().to_string(), taken.address().to_string());
    let got = sluicegate(&["proxy", "--to", &to, "--listen", &listen]);
    assert_eq!(got.code, 1, "{}", got.stderr);
    assert!(
        got.stderr.contains(&listen) && got.stderr.contains("in use"),
        "{}",
        got.stderr
    );
}

#[test]
fn version_says_what_filters_it_takes() {
    let got = sluicegate(&["version"]);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        (got.code, got.stdout),
        (
            0,
            format!(
                "sluicegate {version}\nfilter contract sluicegate:filter@0.1.0\n\
                 builtin filters auth-request, headers, rate-limit, router, sticky, ua-block\n"
            )
        )
    );
    let flag = sluicegate(&["--version"]);
    assert_eq!(
        (flag.code, flag.stdout),
        (0, format!("sluicegate {version}\n"))
    );
}

#[test]
fn help_is_help_and_nothing_is_usage() {
    let help = sluicegate(&["--help"]);
    assert_eq!(help.code, 0);
    for verb in [
        "run",
        "check",
        "explain",
        "reload",
        "demo",
        "proxy",
        "config",
        "cert",
        "completion",
        "man",
        "version",
    ] {
        assert!(
            help.stdout.contains(&format!("\n  {verb} ")),
            "{verb}: {}",
            help.stdout
        );
        assert_eq!(sluicegate(&[verb, "--help"]).code, 0, "{verb}");
    }
    assert_eq!(sluicegate(&[]).code, 2);
}

#[test]
fn a_configuration_without_its_option_is_told_which_it_is() {
    for verb in ["run", "check", "reload"] {
        let got = sluicegate(&[verb, "web.yaml"]);
        assert_eq!(got.code, 2);
        assert!(got.stderr.contains("'-c web.yaml'"), "{}", got.stderr);
    }
    let other = sluicegate(&["check", "web"]);
    assert_eq!(other.code, 2);
    assert!(!other.stderr.contains("-c"), "{}", other.stderr);
}

#[test]
fn what_packages_install_is_made_by_the_program() {
    for shell in ["bash", "fish", "zsh"] {
        let got = sluicegate(&["completion", shell]);
        assert_eq!((got.code, got.stderr.as_str()), (0, ""), "{shell}");
        assert!(got.stdout.contains("self-signed"), "{shell}");
    }
    assert_eq!(sluicegate(&["completion", "tcsh"]).code, 2);
    let dir = tempfile::tempdir().expect("a directory");
    let folder = dir.path().join("man1");
    let got = sluicegate(&["man", &folder.to_string_lossy()]);
    assert_eq!((got.code, got.stdout.as_str()), (0, ""), "{}", got.stderr);
    let main = std::fs::read_to_string(folder.join("sluicegate.1")).expect("a page");
    assert_eq!(sluicegate(&["man"]).stdout, main);
    assert!(folder.join("sluicegate-config-show.1").is_file());
    assert!(main.contains("EXIT STATUS"), "{main}");
    let nowhere = sluicegate(&["man", "/dev/null/man1"]);
    assert_eq!(nowhere.code, 1);
    assert!(
        nowhere
            .stderr
            .starts_with("error: cannot write to \"/dev/null/man1\": "),
        "{}",
        nowhere.stderr
    );
}

#[test]
fn a_module_tells_what_it_is() {
    let told = sluicegate(&["filter", "inspect", "builtin:sticky"]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    for line in [
        "contract  sluicegate:filter@0.1.0",
        "phases    request, response, connect",
        "imports   none",
    ] {
        assert!(
            told.stdout.lines().any(|l| l == line),
            "{line}: {}",
            told.stdout
        );
    }
    assert!(told.stdout.contains("  by "), "{}", told.stdout);
    let told = sluicegate(&["filter", "inspect", "builtin:sticky", "-o", "json"]);
    let told: serde_json::Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!(told["phases"][0]["name"], "request");
    assert!(told["settings"]["properties"]["by"]["description"].is_string());
    assert_eq!(told["sha256"].as_str().map(str::len), Some(64));

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("logs.wasm");
    let logs = super::guest::Guest::default()
        .logs()
        .runs(super::guest::Phase::Request, "(i32.const 0)")
        .build();
    std::fs::write(&file, &logs).expect("a file");
    let told = sluicegate(&["filter", "inspect", &file.to_string_lossy()]);
    assert_eq!(told.code, 0, "{}", told.stderr);
    for text in [
        "imports   log",
        "settings  no schema",
        &format!("size      {} bytes", logs.len()),
    ] {
        assert!(told.stdout.contains(text), "{text}: {}", told.stdout);
    }
    for (name, why) in [
        ("builtin:stiky", "there is no builtin filter"),
        ("no/such.wasm", "no such file"),
        ("/dev/null", "the file is empty"),
        ("/dev/zero", "larger than"),
    ] {
        let refused = sluicegate(&["filter", "inspect", name]);
        assert_eq!((refused.code, refused.stdout.as_str()), (1, ""), "{name}");
        assert!(refused.stderr.contains(why), "{name}: {}", refused.stderr);
    }
}

#[test]
fn the_schema_is_one_and_knows_the_filters() {
    let got = sluicegate(&["config", "schema"]);
    assert_eq!(got.code, 0, "{}", got.stderr);
    let schema: serde_json::Value = serde_json::from_str(&got.stdout).expect("JSON");
    assert!(schema["$schema"].is_string());
    assert!(schema["properties"]["listeners"].is_object());
    for filter in [
        "auth-request",
        "headers",
        "rate-limit",
        "router",
        "sticky",
        "ua-block",
    ] {
        assert!(
            got.stdout.contains(&format!("\"builtin:{filter}\"")),
            "{filter}"
        );
    }
}

#[test]
fn the_reference_has_every_key() {
    let got = sluicegate(&["config", "reference"]);
    assert_eq!(got.code, 0, "{}", got.stderr);
    for key in [
        "`listeners[].bind`",
        "`pools.NAME.endpoints`",
        "`filters.NAME.module`",
        "`settings.deny`",
    ] {
        assert!(got.stdout.contains(&format!("| {key} |")), "{key}");
    }
}

#[test]
fn the_configuration_in_effect_is_one_itself() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("sluicegate.yaml");
    let text = "\
pools: {web: {endpoints: [\"127.0.0.1:9001\"], check: {tcp: {}}}}
listeners: [{name: www, bind: \"${ADDRESS}\", protocol: http, pool: web}]
";
    std::fs::write(&path, text).expect("written");
    let show = |path: &std::path::Path| {
        let output = command()
            .args(["config", "show", "-c"])
            .arg(path)
            .env("ADDRESS", ":8080")
            .output();
        let output = output.expect("it runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    };
    let shown = show(&path);
    assert!(
        shown.contains(":8080") && shown.contains("interval: 10s"),
        "{shown}"
    );
    let again = dir.path().join("shown.yaml");
    std::fs::write(&again, &shown).expect("written");
    assert_eq!(show(&again), shown);

    let wrong = text
        .replace("pool: web", "pool: wbe")
        .replace("${ADDRESS}", ":8080");
    std::fs::write(&path, wrong).expect("written");
    let wrong = sluicegate(&["config", "show", "-c", &path.to_string_lossy()]);
    assert_eq!((wrong.code, wrong.stdout.as_str()), (78, ""));
    assert!(
        wrong.stderr.contains("did you mean \"web\"?"),
        "{}",
        wrong.stderr
    );
}

#[test]
fn certificates_are_made_by_one_command() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().to_string_lossy().into_owned();
    let line = [
        "cert",
        "self-signed",
        "www.lab.test",
        "*.lab.test",
        "192.0.2.1",
        "--out",
        &out,
    ];
    let got = sluicegate(&line);
    assert_eq!(got.code, 0, "{}", got.stderr);
    let key = dir.path().join("www.lab.test.key");
    let mode = key.metadata().expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A program other than its maker reads it.
    let output = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-ext", "subjectAltName", "-in"])
        .arg(dir.path().join("www.lab.test.crt"))
        .output()
        .expect("openssl runs (is it installed?)");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("DNS:www.lab.test, DNS:*.lab.test, IP Address:192.0.2.1"),
        "{said}"
    );

    let again = sluicegate(&line);
    assert_eq!(again.code, 1);
    assert!(
        again.stderr.contains("exists; --force replaces it"),
        "{}",
        again.stderr
    );
    assert_eq!(sluicegate(&[&line[..], &["--force"]].concat()).code, 0);
    assert_eq!(sluicegate(&["cert", "self-signed"]).code, 2);
}

#[test]
fn reload_says_what_came_of_it() {
    let web1 = Backend::http("web1");
    let bind = Addresses::new().free();
    let yaml = format!(
        "pools: {{web: {{endpoints: [\"{}\"]}}}}\nlisteners: [{{name: www, bind: \"{bind}\", protocol: http, pool: web}}]\n",
        web1.address()
    );
    let mut proxy = Proxy::start(&yaml);
    let done = proxy.reload(&yaml.replace("pool: web", "pool: web, filters: [builtin:sticky]"));
    assert_eq!(
        done.code, 78,
        "builtin:sticky needs settings: {}",
        done.stdout
    );
    assert!(
        done.stderr
            .ends_with("generation 1 goes on: nothing was changed\n"),
        "{}",
        done.stderr
    );

    let more = yaml.replace("]}}\n", "]}, x-spare: {endpoints: [\"127.0.0.1:1\"]}}\n");
    assert_ne!(more, yaml);
    let done = proxy.reload(&more);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(
        done.stdout
            .starts_with("generation 1 → 2 (1 pool changed) in "),
        "{}",
        done.stdout
    );
    let done = proxy.reload(&more);
    assert!(
        done.stdout
            .starts_with("generation 2 → 3 (nothing changed) in "),
        "{}",
        done.stdout
    );

    let refused = proxy.reload(&yaml.replace("pool: web", "pool: wbe"));
    assert_eq!(refused.code, 78);
    assert!(
        refused.stderr.contains("error[unknown-pool]"),
        "{}",
        refused.stderr
    );
    assert_eq!(get(bind, "/").expect("an answer").text(), "web1");
    assert_eq!(
        proxy.metric("sluicegate_config_last_reload_successful"),
        0.0
    );
    assert_eq!(proxy.metric("sluicegate_config_generation"), 3.0);

    // It finds the socket where the configuration says it is, too.
    proxy.configure(&yaml);
    let config = proxy.directory().join("sluicegate.yaml");
    let done = sluicegate(&["reload", "-c", &config.to_string_lossy()]);
    assert_eq!(done.code, 0, "{}", done.stderr);

    let socket = proxy.admin_socket().to_string_lossy().into_owned();
    proxy.signal(rustix::process::Signal::TERM);
    assert_eq!(proxy.wait().code(), Some(0));
    let nobody = sluicegate(&["reload", "--admin", &socket]);
    assert_eq!(nobody.code, 69);
    assert!(
        nobody.stderr.contains("Is it running?"),
        "{}",
        nobody.stderr
    );
    assert_eq!(sluicegate(&["reload", "--admin", "nonsense"]).code, 2);
}

/// A process that is killed at the end.
struct Running(Child);

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let child = command()
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sluicegate starts");
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
