//! The cookie's value: an endpoint's address, encrypted and authenticated, so that a client can neither read where it
//! was sent nor choose.
//!
//! The construction is SIV's (RFC 5297), with HMAC-SHA256 as the pseudo-random function, because a filter has no source
//! of random nonces: the tag is a MAC of the padded address, and the keystream comes from the tag. Equal addresses give
//! equal tokens, which stickiness needs anyway; padding hides the length. The cookie's name is part of what is signed,
//! so that a token is good for one cookie only.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Room for `[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:65535` and an end mark.
const PADDED: usize = 64;
const TAG: usize = 16;
const RAW: usize = TAG + PADDED;
/// The length of the text form.
pub const LEN: usize = (RAW * 4).div_ceil(3);

/// Seals and opens tokens.
pub struct Sealer {
    mac: Hmac<Sha256>,
    keystream: Hmac<Sha256>,
}

impl Sealer {
    /// Keys for this secret and cookie.
    pub fn new(secret: &[u8], cookie: &str) -> Self {
        let root = keyed(secret);
        let derived = |purpose: &[u8]| {
            let mut mac = root.clone();
            mac.update(b"sluicegate sticky 1 ");
            mac.update(purpose);
            mac.update(&[0]);
            mac.update(cookie.as_bytes());
            keyed(&mac.finalize().into_bytes())
        };
        Self {
            mac: derived(b"mac"),
            keystream: derived(b"keystream"),
        }
    }

    /// The token for an endpoint; `None` for what is too long to be an address.
    pub fn seal(&self, endpoint: &str) -> Option<String> {
        if endpoint.is_empty() || endpoint.len() >= PADDED || endpoint.contains('\0') {
            return None;
        }
        let mut raw = [0; RAW];
        raw[TAG..TAG + endpoint.len()].copy_from_slice(endpoint.as_bytes());
        let mut mac = self.mac.clone();
        mac.update(&raw[TAG..]);
        raw[..TAG].copy_from_slice(&mac.finalize().into_bytes()[..TAG]);
        self.whiten(&mut raw);
        Some(URL_SAFE_NO_PAD.encode(raw))
    }

    /// The endpoint in a token that this sealer made.
    pub fn open(&self, token: &[u8]) -> Option<String> {
        if token.len() != LEN {
            return None;
        }
        let mut raw = [0; RAW];
        if URL_SAFE_NO_PAD.decode_slice(token, &mut raw) != Ok(RAW) {
            return None;
        }
        self.whiten(&mut raw);
        let mut mac = self.mac.clone();
        mac.update(&raw[TAG..]);
        // Compares in constant time.
        mac.verify_truncated_left(&raw[..TAG]).ok()?;
        let padded = &raw[TAG..];
        let len = padded.iter().position(|b| *b == 0)?;
        String::from_utf8(padded[..len].to_vec()).ok()
    }

    /// Adds the keystream that belongs to the tag; doing it twice takes it off.
    fn whiten(&self, raw: &mut [u8; RAW]) {
        let (tag, text) = raw.split_at_mut(TAG);
        for (counter, chunk) in text.chunks_mut(32).enumerate() {
            let mut mac = self.keystream.clone();
            mac.update(tag);
            mac.update(&[counter as u8]);
            let pad = mac.finalize().into_bytes();
            chunk
                .iter_mut()
                .zip(pad)
                .for_each(|(byte, pad)| *byte ^= pad);
        }
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length (RFC 2104 §2)")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef";

    #[test]
    fn a_token_opens_to_what_was_sealed() {
        let sealer = Sealer::new(SECRET, "route");
        for endpoint in ["10.0.0.1:80", "[2001:db8::1]:65535"] {
            let token = sealer.seal(endpoint).unwrap();
            assert_eq!(token.len(), LEN);
            assert!(!token.contains("10."));
            assert_eq!(sealer.open(token.as_bytes()).as_deref(), Some(endpoint));
        }
        assert_eq!(sealer.seal(""), None);
        assert_eq!(sealer.seal(&"1".repeat(64)), None);
    }

    #[test]
    fn nothing_else_opens() {
        let sealer = Sealer::new(SECRET, "route");
        let token = sealer.seal("10.0.0.1:80").unwrap();
        for i in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[i] = if forged[i] == b'A' { b'B' } else { b'A' };
            assert_eq!(sealer.open(&forged), None, "byte {i}");
        }
        assert_eq!(sealer.open(b""), None);
        assert_eq!(sealer.open(&token.as_bytes()[1..]), None);
        assert_eq!(Sealer::new(SECRET, "other").open(token.as_bytes()), None);
        assert_eq!(
            Sealer::new(b"0123456789abcdeF", "route").open(token.as_bytes()),
            None
        );
    }
}
