//! HTTP from the client's bytes to the upstream and back.
