//! Anchored globs, the same as the host's: `*` any run of bytes, `?` one byte, `\` quotes the next.

/// A glob that was checked. Matching is case-sensitive, over bytes, and takes at most `glob × text` steps.
///
/// ```
/// use sluicegate_sdk::Glob;
///
/// let glob = Glob::new("badcurl*");
/// assert!(glob.matches(b"badcurl/1.0"));
/// assert!(!Glob::new("badcurl").matches(b"badcurl/1.0"));
/// assert!(Glob::new(r"100\*").matches(b"100*"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    One,
    Run,
}

impl Glob {
    /// Every string is a glob; a `\` at the end stands for itself.
    pub fn new(glob: &str) -> Self {
        let mut tokens = Vec::with_capacity(glob.len());
        let mut bytes = glob.bytes();
        while let Some(byte) = bytes.next() {
            let token = match byte {
                b'*' => Token::Run,
                b'?' => Token::One,
                b'\\' => Token::Byte(bytes.next().unwrap_or(b'\\')),
                byte => Token::Byte(byte),
            };
            // Two runs in a row are one.
            if token != Token::Run || tokens.last() != Some(&Token::Run) {
                tokens.push(token);
            }
        }
        Self { tokens }
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        let (mut t, mut g) = (0, 0);
        // Where the last `*` was, and the text position to try next should the tail after it fail.
        let mut retry: Option<(usize, usize)> = None;
        while t < text.len() {
            match self.tokens.get(g) {
                Some(Token::Run) => {
                    retry = Some((g + 1, t + 1));
                    g += 1;
                }
                Some(Token::One) => {
                    t += 1;
                    g += 1;
                }
                Some(Token::Byte(byte)) if *byte == text[t] => {
                    t += 1;
                    g += 1;
                }
                _ => match retry {
                    Some((tail, next)) => {
                        g = tail;
                        t = next;
                        retry = Some((tail, next + 1));
                    }
                    None => return false,
                },
            }
        }
        self.tokens[g..].iter().all(|token| *token == Token::Run)
    }

    /// How many bytes it asks for literally: the more, the more specific.
    pub fn literal_len(&self) -> usize {
        self.tokens
            .iter()
            .filter(|token| matches!(token, Token::Byte(_)))
            .count()
    }
}
