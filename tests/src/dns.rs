//! A name server on a plain thread, which answers over UDP what a test wants of it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const TYPE_A: u16 = 1;
const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
/// Seconds that answers claim to hold.
const TTL: u32 = 1;

/// What is said about a name.
#[derive(Debug, Clone)]
pub enum Reply {
    Addresses(Vec<Ipv4Addr>),
    /// Another part of so many addresses each time.
    Some(usize, Vec<Ipv4Addr>),
    NoSuchName,
    NoAddress,
    ServerFailure,
    /// A failure when asked for IPv4 addresses; there are none of IPv6.
    HalfFailure,
    Silence,
}

/// A running name server; stops when dropped.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    stopping: AtomicBool,
    asked: AtomicUsize,
    zone: Mutex<HashMap<String, Reply>>,
}

impl NameServer {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let address = socket.local_addr().expect("its address");
        let pause = Some(Duration::from_millis(50));
        socket.set_read_timeout(pause).expect("a timeout");
        let state = Arc::new(State::default());
        let serving = state.clone();
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 512];
            while !serving.stopping.load(Ordering::SeqCst) {
                let Ok((length, peer)) = socket.recv_from(&mut packet) else {
                    continue;
                };
                if let Some(answer) = serving.answer(&packet[..length]) {
                    let _ = socket.send_to(&answer, peer);
                }
            }
        });
        Self {
            address,
            state,
            thread: Some(thread),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on `name` (lower case, without a dot at the end) is answered with `reply`; unknown names do not exist.
    pub fn set(&self, name: &str, reply: Reply) {
        let zone = self.state.zone.lock();
        let mut zone = zone.unwrap_or_else(PoisonError::into_inner);
        zone.insert(name.to_owned(), reply);
    }

    /// Questions so far, answered or not.
    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    /// None: silence, also to what is not a question.
    fn answer(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let (mut at, mut labels) = (12, Vec::new());
        loop {
            let length = usize::from(*packet.get(at)?);
            let label = packet.get(at + 1..at + 1 + length)?;
            at += 1 + length;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(label).to_lowercase());
        }
        let kind = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
        let question = packet.get(12..at + 4)?;
        let zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = zone.get(&labels.join("."));
        let (code, addresses) = match reply.unwrap_or(&Reply::NoSuchName) {
            Reply::Addresses(all) => (0, all.clone()),
            Reply::Some(n, all) => {
                let mut order = all.clone();
                // Any order will do that is another one each time.
                let key =
                    |ip: &Ipv4Addr| (u32::from(*ip) ^ number as u32).wrapping_mul(0x9e37_79b1);
                order.sort_by_key(|ip| key(ip) ^ (number as u32).wrapping_mul(0x85eb_ca6b));
                order.truncate(*n);
                (0, order)
            }
            Reply::NoAddress => (0, Vec::new()),
            Reply::NoSuchName => (NXDOMAIN, Vec::new()),
            Reply::HalfFailure if kind != TYPE_A => (0, Vec::new()),
            Reply::ServerFailure | Reply::HalfFailure => (SERVFAIL, Vec::new()),
            Reply::Silence => return None,
        };
        let addresses = if kind == TYPE_A {
            addresses
        } else {
            Vec::new()
        };
        let mut answer = packet.get(..2)?.to_vec();
        // A response, with recursion desired and available.
        answer.extend([
            0x81,
            0x80 | code,
            0,
            1,
            0,
            addresses.len() as u8,
            0,
            0,
            0,
            0,
        ]);
        answer.extend(question);
        for ip in addresses {
            // The name of the question, IN, A.
            answer.extend([0xc0, 12, 0, 1, 0, 1]);
            answer.extend(TTL.to_be_bytes());
            answer.extend([0, 4]);
            answer.extend(ip.octets());
        }
        Some(answer)
    }
}
