//! Connections as the kernel has them (proc_net_tcp(5)).

use std::net::{SocketAddr, SocketAddrV4};

const ESTABLISHED: &str = "01";

/// Whether some socket is connected to `remote` and has heard of no end: a peer that has ended its own side may not have
/// reached the other yet, even over loopback.
pub fn is_connected_to(remote: SocketAddr) -> bool {
    let SocketAddr::V4(remote) = remote else {
        panic!("{remote} is not of IPv4");
    };
    let remote = in_hex(remote);
    let table = std::fs::read_to_string("/proc/net/tcp").expect("/proc is there");
    table.lines().skip(1).any(|line| {
        let mut columns = line.split_whitespace().skip(2);
        columns.next() == Some(&*remote) && columns.next() == Some(ESTABLISHED)
    })
}

/// The address in the byte order of the machine, as the kernel prints it.
fn in_hex(address: SocketAddrV4) -> String {
    let ip = u32::from_ne_bytes(address.ip().octets());
    format!("{ip:08X}:{:04X}", address.port())
}
