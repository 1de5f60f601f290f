//! Anchored globs over bytes: `*` any run, `?` one byte, `\` quotes the next.

/// What evaluating a predicate may still take: bytes looked at, and a few for each comparison.
#[derive(Debug)]
pub(super) struct Steps(pub(super) u32);

impl Steps {
    /// None when there are not as many left.
    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.checked_sub(u32::try_from(count).ok()?)?;
        Some(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    One,
    Run,
}

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob {
    tokens: Box<[Token]>,
    ignore_case: bool,
}

impl Glob {
    pub(super) fn new(pattern: &str, ignore_case: bool) -> Self {
        let mut tokens = Vec::with_capacity(pattern.len());
        let mut bytes = pattern.bytes();
        while let Some(byte) = bytes.next() {
            let token = match byte {
                b'*' => Token::Run,
                b'?' => Token::One,
                // A lone backslash at the end means itself.
                b'\\' => Token::Byte(bytes.next().unwrap_or(b'\\')),
                other => Token::Byte(other),
            };
            // Runs in a row are one: `**` would only make matching slower.
            if !(token == Token::Run && tokens.last() == Some(&Token::Run)) {
                tokens.push(match token {
                    Token::Byte(b) if ignore_case => Token::Byte(b.to_ascii_lowercase()),
                    other => other,
                });
            }
        }
        Self {
            tokens: tokens.into(),
            ignore_case,
        }
    }

    /// A pattern that compiles to this one.
    pub(super) fn pattern(&self) -> Vec<u8> {
        let mut pattern = Vec::with_capacity(self.tokens.len());
        for token in &self.tokens {
            match *token {
                Token::Run => pattern.push(b'*'),
                Token::One => pattern.push(b'?'),
                Token::Byte(byte @ (b'*' | b'?' | b'\\')) => pattern.extend([b'\\', byte]),
                Token::Byte(byte) => pattern.push(byte),
            }
        }
        pattern
    }

    /// Takes at most `pattern × text` steps, since on a mismatch only the last run grows, and takes them off `steps`;
    /// none when they ran out.
    pub(super) fn matches(&self, text: &[u8], steps: &mut Steps) -> Option<bool> {
        let (mut at, mut token) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        while at < text.len() {
            steps.take(1)?;
            match self.tokens.get(token) {
                Some(Token::Run) => {
                    retry = Some((at, token + 1));
                    token += 1;
                    continue;
                }
                Some(Token::One) => {
                    at += 1;
                    token += 1;
                    continue;
                }
                Some(Token::Byte(byte)) if self.is_same(*byte, text[at]) => {
                    at += 1;
                    token += 1;
                    continue;
                }
                _ => {}
            }
            let Some((from, after_run)) = retry else {
                return Some(false);
            };
            retry = Some((from + 1, after_run));
            at = from + 1;
            token = after_run;
        }
        Some(self.tokens[token..].iter().all(|t| *t == Token::Run))
    }

    fn is_same(&self, pattern: u8, text: u8) -> bool {
        if self.ignore_case {
            pattern == text.to_ascii_lowercase()
        } else {
            pattern == text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(glob: &Glob, text: &[u8]) -> bool {
        glob.matches(text, &mut Steps(1000)).expect("steps enough")
    }

    #[test]
    fn many_runs_cost_what_they_may_and_no_more() {
        let glob = Glob::new(&"*aaaaaaab".repeat(1000), false);
        let text = [b'a'; 16 * 1024];
        assert_eq!(glob.matches(&text, &mut Steps(50_000)), None);
    }

    #[test]
    fn globs() {
        let cases = [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*.example.com", "www.example.com", true),
            ("*.example.com", "example.com", false),
            ("/a/*/c/*", "/a/b/b/c/d", true),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            (r"a\", r"a\", true),
            ("*a*b*", "xxaxxbxx", true),
            ("**", "x", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(
                matches(&Glob::new(pattern, false), text.as_bytes()),
                expected,
                "{pattern} on {text}"
            );
        }
        assert!(matches(&Glob::new("WWW.*", true), b"www.EXAMPLE.com"));
        assert!(!matches(&Glob::new("WWW.*", false), b"www.example.com"));
    }

    proptest! {
        #[test]
        fn a_quoted_text_matches_itself_alone(text in "[a-z*?\\\\]{0,12}", other in "[a-z*?\\\\]{0,12}") {
            let quoted: String = text.chars().flat_map(|c| ['\\', c]).collect();
            let glob = Glob::new(&quoted, false);
            prop_assert!(matches(&glob, text.as_bytes()));
            prop_assert_eq!(matches(&glob, other.as_bytes()), text == other);
        }
    }
}
