//! Sockets: bind, accept, limits.
