//! TLS towards clients: certificates, server configurations, handshake facts.
