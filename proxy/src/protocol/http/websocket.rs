//! The opening handshake of WebSocket (RFC 6455 §4) towards an endpoint, on behalf of a client that opened its WebSocket over
//! HTTP/2 (RFC 8441), where there is neither key nor answer to one.

/// What both sides of the handshake know besides the key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A `Sec-WebSocket-Key`: 16 random bytes. It proves nothing about anybody, so that any random numbers will do.
pub fn key() -> String {
    base64(&fastrand::u128(..).to_be_bytes())
}

/// The `Sec-WebSocket-Accept` that answers `key`.
pub fn accept(key: &[u8]) -> String {
    let mut sha1 = sha1_smol::Sha1::new();
    sha1.update(key);
    sha1.update(GUID);
    base64(&sha1.digest().bytes())
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0, |bits, &b| bits << 8 | u32::from(b)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > group.len() {
                '='
            } else {
                letter.into()
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        let key = b"dGhlIHNhbXBsZSBub25jZQ==";
        assert_eq!(accept(key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn base64_of_every_length() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foobar\xff\xfe", "Zm9vYmFy//4="),
        ] {
            assert_eq!(base64(bytes), text);
        }
        assert_eq!(key().len(), 24);
        assert_ne!(key(), key());
    }
}
