//! Addresses for listeners that a configuration must name before anyone binds them.
//!
//! Each test gets a loopback address of its own (`127.x.y.z`, derived from the process and a counter), so that tests
//! never meet: not those of one process, nor those of two that run side by side. On it, ports count up from 20000, below
//! the range the kernel hands out for outgoing connections.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 30_000;

static TAKEN: AtomicU32 = AtomicU32::new(0);

/// A loopback address that no other test uses, and its ports.
#[derive(Debug)]
pub struct Addresses {
    ip: Ipv4Addr,
    port: u16,
}

impl Addresses {
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let taken = TAKEN.fetch_add(1, Ordering::Relaxed);
        // 16 bits of the process and 6 of the counter: 127.64.0.0 to 127.127.255.255.
        let host = (std::process::id() & 0xffff) << 6 | (taken & 0x3f);
        let port = FIRST_PORT + u16::try_from(taken >> 6).unwrap_or(0) * 64;
        Self {
            ip: Ipv4Addr::from(0x7f40_0000 | host),
            port,
        }
    }

    pub fn ip(&self) -> IpAddr {
        self.ip.into()
    }

    /// The next address nobody listens on.
    pub fn free(&mut self) -> SocketAddr {
        while self.port < LAST_PORT {
            let address = SocketAddr::new(self.ip(), self.port);
            self.port += 1;
            // std sets SO_REUSEADDR: what is only in TIME_WAIT counts as free, and binding leaves no trace.
            if TcpListener::bind(address).is_ok() {
                return address;
            }
        }
        panic!("no port is free on {}", self.ip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tests_share_an_address() {
        let (mut a, mut b) = (Addresses::new(), Addresses::new());
        assert_ne!(a.ip(), b.ip());
        assert!(a.ip().is_loopback());
        let all = [a.free(), a.free(), b.free()];
        assert_ne!(all[0], all[1]);
        assert_ne!(all[0], all[2]);
    }
}
