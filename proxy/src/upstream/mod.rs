//! Pools, endpoints, balancing, checks, connections.
