//! The first words of a TLS client, byte by byte: for clients that no library would be.

/// A ClientHello in one record; what no case changes is what clients send today.
pub struct Hello {
    pub legacy_version: u16,
    pub versions: Vec<u16>,
    pub suites: Vec<u16>,
    pub server_name: Vec<u8>,
    pub alpn: Option<&'static str>,
}

impl Default for Hello {
    fn default() -> Self {
        Self {
            legacy_version: 0x0303,
            versions: vec![0x0304, 0x0303],
            suites: vec![0x1301, 0x1302, 0xc02b, 0xc02f],
            server_name: b"localhost".to_vec(),
            alpn: None,
        }
    }
}

impl Hello {
    pub fn message(&self) -> Vec<u8> {
        let words = |list: &[u16]| {
            list.iter()
                .flat_map(|w| w.to_be_bytes())
                .collect::<Vec<_>>()
        };
        let mut extensions = Vec::new();
        let name = [&[0][..], &sized(2, &self.server_name)].concat();
        extensions.extend(extension(0, &sized(2, &name)));
        // x25519 and secp256r1; ECDSA and RSA-PSS with SHA-256.
        extensions.extend(extension(10, &sized(2, &words(&[0x001d, 0x0017]))));
        extensions.extend(extension(13, &sized(2, &words(&[0x0403, 0x0804]))));
        if let Some(protocol) = self.alpn {
            extensions.extend(extension(16, &sized(2, &sized(1, protocol.as_bytes()))));
        }
        if !self.versions.is_empty() {
            extensions.extend(extension(43, &sized(1, &words(&self.versions))));
            let share = [&words(&[0x001d])[..], &sized(2, &[9; 32])].concat();
            extensions.extend(extension(51, &sized(2, &share)));
        }
        let body = [
            &self.legacy_version.to_be_bytes()[..],
            &[7; 32],
            &sized(1, &[]),
            &sized(2, &words(&self.suites)),
            &sized(1, &[0]),
            &sized(2, &extensions),
        ]
        .concat();
        [&[1][..], &sized(3, &body)].concat()
    }

    pub fn record(&self) -> Vec<u8> {
        record(22, &self.message())
    }
}

/// One record of TLS in the clear.
pub fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &sized(2, payload)].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &sized(2, content)].concat()
}

/// `content` behind its length in `bytes` bytes.
fn sized(bytes: usize, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_be_bytes();
    [&length[8 - bytes..], content].concat()
}
