//! TCP in front of SSH: real servers, real clients, and a gigabyte that the proxy never looks at.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sluicegate_tests::addresses::Addresses;
use sluicegate_tests::backend::Backend;
use sluicegate_tests::client::Raw;
use sluicegate_tests::proxy::Proxy;
use sluicegate_tests::wait::{DEADLINE, eventually, until};
use tempfile::TempDir;

use super::{expected, shares};

const GIB: u64 = 1 << 30;

/// Of a gibibyte of a cipher over zeros, which takes no file and of which no two pieces are alike.
const STREAM_SHA256: &str = "ed3981f896d212d69675dd03121d42d589198edad6bc27b9fa7827d91be91117";

#[test]
fn a_thousand_connections_are_shared_by_two_servers() {
    let lab = Lab::start();
    let bind = Addresses::new().free();
    let _proxy = Proxy::start(&relay(bind, &lab.endpoints()));
    let banners = shares((0..1000).map(|_| banner(bind)));
    assert_eq!(banners, expected(&[("node1", 500), ("node2", 500)]));
    let logins = shares((0..10).map(|_| lab.ssh(bind, "echo $NODE").trim().to_owned()));
    assert_eq!(logins, expected(&[("node1", 5), ("node2", 5)]));
}

#[test]
fn a_gibibyte_over_ssh_arrives_intact() {
    let lab = Lab::start();
    let bind = Addresses::new().free();
    let mut proxy = Proxy::start(&relay(bind, &lab.endpoints()));
    let stream = format!(
        "openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 00 -in /dev/zero 2>/dev/null | head -c {GIB}"
    );
    let copied = lab.ssh_into(bind, &stream, "openssl dgst -sha256 -r");
    assert_eq!(copied.split(' ').next(), Some(STREAM_SHA256));
    assert!(proxy.is_running());
    // The stream went through the proxy, not into it.
    let resident = proxy.resources().resident_bytes;
    assert!(resident < 256 << 20, "{resident} bytes resident");
}

/// Counts what the system calls of the proxy moved: all but a sliver by splice(2), which copies nothing into the
/// process.
#[test]
fn bulk_is_spliced() {
    const BULK: u64 = 64 << 20;
    let source = Backend::raw(|mut stream, _| {
        let piece = vec![7; 1 << 20];
        for _ in 0..BULK / piece.len() as u64 {
            if stream.write_all(&piece).is_err() {
                return;
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read(&mut [0]);
    });
    let bind = Addresses::new().free();
    let proxy = Proxy::start(&relay(bind, &[source.address()]));
    let trace = proxy.directory().join("trace");
    let Some(mut tracer) = Tracer::attach(proxy.pid(), &trace) else {
        println!("skipped: strace is not there or may not trace");
        return;
    };
    let mut client = TcpStream::connect(bind).expect("connected");
    client.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    let mut buffer = vec![0; 1 << 20];
    let mut received = 0;
    loop {
        match client.read(&mut buffer).expect("more") {
            0 => break,
            n => {
                assert!(buffer[..n].iter().all(|&b| b == 7));
                received += n as u64;
            }
        }
    }
    assert_eq!(received, BULK);
    tracer.detach();
    let moved = Moved::read(&trace);
    // Each byte is spliced twice: into a pipe and out of it.
    assert!(moved.spliced > 2 * (BULK - BULK / 16), "{moved:?}");
    assert!(moved.copied < BULK / 16, "{moved:?}");
}

fn relay(bind: SocketAddr, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|e| format!("\"{e}\"")).collect();
    format!(
        "\
pools:
  ssh-hosts: {{endpoints: [{}], check: tcp}}
listeners:
  - name: ssh
    bind: {bind}
    protocol: tcp
    tcp: {{nodelay: true, socket-buffer: 65536}}
    pool: ssh-hosts
",
        endpoints.join(", ")
    )
}

/// The name a server puts at the end of its banner.
fn banner(bind: SocketAddr) -> String {
    let mut raw = Raw::connect(bind);
    let line = raw.line().expect("a banner");
    line.rsplit(' ').next().unwrap_or_default().to_owned()
}

/// Two SSH servers that differ in name alone, and a client who may log in to both.
struct Lab {
    dir: TempDir,
    servers: Vec<(Child, SocketAddr)>,
}

impl Lab {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        // Servers behind one address are one host to their clients, so they share its key.
        for key in ["host_key", "client_key"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"])
                .arg(dir.path().join(key))
                .status()
                .expect("ssh-keygen runs (is it installed?)");
            assert!(made.success());
        }
        std::fs::copy(
            dir.path().join("client_key.pub"),
            dir.path().join("authorized_keys"),
        )
        .expect("keys");
        privilege_separation();
        let servers = ["node1", "node2"]
            .map(|name| Self::server(dir.path(), name))
            .into();
        Self { dir, servers }
    }

    fn server(dir: &Path, name: &str) -> (Child, SocketAddr) {
        let address = Addresses::new().free();
        let config = dir.join(format!("{name}.conf"));
        let file = |name: &str| dir.join(name).display().to_string();
        let text = format!(
            "\
ListenAddress {address}
HostKey {}
AuthorizedKeysFile {}
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 2000
UseDNS no
PrintMotd no
PrintLastLog no
VersionAddendum {name}
SetEnv NODE={name}
",
            file("host_key"),
            file("authorized_keys"),
        );
        std::fs::write(&config, text).expect("configuration");
        let log = std::fs::File::create(dir.join(format!("{name}.log"))).expect("a log");
        let mut child = Command::new(sshd())
            .args(["-D", "-e", "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("sshd starts (is openssh-server installed?)");
        let log = || std::fs::read_to_string(dir.join(format!("{name}.log"))).unwrap_or_default();
        let up = until(DEADLINE, || {
            let ended = child.try_wait().expect("wait").is_some();
            assert!(!ended, "sshd ended:\n{}", log());
            log().contains("Server listening").then_some(())
        });
        assert!(up.is_some(), "sshd does not listen:\n{}", log());
        (child, address)
    }

    fn endpoints(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|(_, address)| *address).collect()
    }

    /// Logs in and runs `command`; gives its standard output.
    fn ssh(&self, at: SocketAddr, command: &str) -> String {
        self.ssh_into(at, command, "cat")
    }

    /// Logs in, runs `command` there and pipes what it writes into `sink` here, whose standard output it gives.
    fn ssh_into(&self, at: SocketAddr, command: &str, sink: &str) -> String {
        let mut ssh = Command::new("ssh")
            .args([
                "-F",
                "none",
                "-T",
                "-o",
                "BatchMode=yes",
                "-o",
                "StrictHostKeyChecking=yes",
            ])
            .args([
                "-o",
                "IdentitiesOnly=yes",
                "-o",
                "LogLevel=ERROR",
                "-o",
                "GlobalKnownHostsFile=none",
            ])
            .args([
                "-o",
                &format!("UserKnownHostsFile={}", self.known_hosts(at).display()),
            ])
            .args([
                "-c",
                "aes128-gcm@openssh.com",
                "-p",
                &at.port().to_string(),
                "-i",
            ])
            .arg(self.dir.path().join("client_key"))
            .arg(at.ip().to_string())
            .arg(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ssh runs (is it installed?)");
        let stdout = ssh.stdout.take().expect("a pipe");
        let sunk = Command::new("sh")
            .args(["-c", sink])
            .stdin(stdout)
            .output()
            .expect("a sink");
        let ended = ssh.wait_with_output().expect("wait");
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert!(
            ended.status.success(),
            "ssh: {}: {stderr}\n{}",
            ended.status,
            self.logs()
        );
        String::from_utf8_lossy(&sunk.stdout).into_owned()
    }

    fn known_hosts(&self, at: SocketAddr) -> PathBuf {
        let path = self.dir.path().join("known_hosts");
        let key = std::fs::read_to_string(self.dir.path().join("host_key.pub")).expect("a key");
        std::fs::write(&path, format!("[{}]:{} {key}", at.ip(), at.port())).expect("written");
        path
    }

    fn logs(&self) -> String {
        ["node1.log", "node2.log"]
            .map(|name| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default())
            .concat()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (server, _) in &mut self.servers {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// sshd wants to be started by its absolute path.
fn sshd() -> PathBuf {
    let places = [
        "/usr/sbin/sshd",
        "/usr/local/sbin/sshd",
        "/usr/bin/sshd",
        "/sbin/sshd",
    ];
    let found = places.iter().map(PathBuf::from).find(|path| path.exists());
    found.expect("sshd is installed (Debian: openssh-server)")
}

/// Started as root, sshd wants an empty directory that init scripts make.
fn privilege_separation() {
    if rustix::process::geteuid().is_root() {
        let _ = std::fs::create_dir_all("/run/sshd");
    }
}

/// A running strace.
struct Tracer(Child);

impl Tracer {
    /// Traces the calls that move bytes, of every thread; none when that cannot be.
    fn attach(pid: u32, into: &Path) -> Option<Self> {
        let log = into.with_extension("log");
        let child = Command::new("strace")
            .args([
                "-f",
                "-e",
                "trace=splice,read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,sendfile",
            ])
            .args(["-e", "signal=none", "-s", "0", "-o"])
            .arg(into)
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log).expect("a log"))
            .spawn()
            .ok()?;
        let mut tracer = Self(child);
        let attached = eventually(DEADLINE, || {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            log.contains("attached") || tracer.0.try_wait().expect("wait").is_some()
        });
        (attached && tracer.0.try_wait().expect("wait").is_none()).then_some(tracer)
    }

    fn detach(&mut self) {
        let pid = i32::try_from(self.0.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let _ = rustix::process::kill_process(pid.expect("a pid"), rustix::process::Signal::INT);
        self.0.wait().expect("strace ends");
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes by the kind of call that moved them.
#[derive(Debug, Default)]
struct Moved {
    spliced: u64,
    copied: u64,
}

impl Moved {
    fn read(trace: &Path) -> Self {
        let mut moved = Self::default();
        for line in std::fs::read_to_string(trace).expect("a trace").lines() {
            let result = line.rsplit(" = ").next().and_then(|r| r.split(' ').next());
            let Some(bytes) = result.and_then(|r| r.parse::<u64>().ok()) else {
                continue;
            };
            // `12 splice(…) = n`, or `12 <... splice resumed>…) = n`
            match line.contains(" splice(") || line.contains("<... splice resumed") {
                true => moved.spliced += bytes,
                false => moved.copied += bytes,
            }
        }
        moved
    }
}
