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
    /// What the text begins with; all of it when there is no `*`.
    head: Piece,
    /// What must follow somewhere, in order, each behind a `*`.
    middle: Vec<Piece>,
    /// What the text ends with, behind the last `*`.
    tail: Option<Piece>,
}

/// What stands between two `*`: bytes, and `None` for a `?`.
type Piece = Vec<Option<u8>>;

impl Glob {
    /// Every string is a glob; a `\` at the end stands for itself.
    pub fn new(glob: &str) -> Self {
        let mut pieces = vec![Piece::new()];
        let mut bytes = glob.bytes();
        while let Some(byte) = bytes.next() {
            let byte = match byte {
                b'*' => {
                    pieces.push(Piece::new());
                    continue;
                }
                b'?' => None,
                b'\\' => Some(bytes.next().unwrap_or(b'\\')),
                byte => Some(byte),
            };
            if let Some(piece) = pieces.last_mut() {
                piece.push(byte);
            }
        }
        let head = pieces.remove(0);
        let tail = pieces.pop();
        // Two runs in a row are one.
        pieces.retain(|piece| !piece.is_empty());
        Self {
            head,
            middle: pieces,
            tail,
        }
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: &[u8]) -> bool {
        let Some((start, mut rest)) = text.split_at_checked(self.head.len()) else {
            return false;
        };
        if !is_at(&self.head, start) {
            return false;
        }
        let Some(tail) = &self.tail else {
            return rest.is_empty();
        };
        for piece in &self.middle {
            // The first place is the best: it leaves the most for what follows.
            let Some(at) = find(piece, rest) else {
                return false;
            };
            rest = &rest[at + piece.len()..];
        }
        rest.len()
            .checked_sub(tail.len())
            .is_some_and(|at| is_at(tail, &rest[at..]))
    }

    /// How many bytes it asks for literally: the more, the more specific.
    pub fn literal_len(&self) -> usize {
        let pieces = self.middle.iter().chain([&self.head]).chain(&self.tail);
        pieces.flatten().flatten().count()
    }
}

/// Whether `text` begins with `piece`; it is at least as long.
fn is_at(piece: &[Option<u8>], text: &[u8]) -> bool {
    piece
        .iter()
        .zip(text)
        .all(|(wanted, byte)| wanted.is_none_or(|wanted| wanted == *byte))
}

/// Where in `text` the first place of `piece` is.
fn find(piece: &[Option<u8>], text: &[u8]) -> Option<usize> {
    let last = text.len().checked_sub(piece.len())?;
    let mut from = 0;
    loop {
        if let Some(Some(first)) = piece.first() {
            from += text[from..=last].iter().position(|byte| byte == first)?;
        }
        if is_at(piece, &text[from..]) {
            return Some(from);
        }
        from += 1;
        if from > last {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (glob, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "abc", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("?", "", false),
            ("*?", "", false),
            ("*?b*", "ab", true),
            ("*?b*", "b", false),
            ("*ab*ab", "abab", true),
            ("*ab*ab", "ab", false),
            ("*aab*", "aaab", true),
            (r"a\*", "a*", true),
            (r"a\*", "ab", false),
            (r"a\", r"a\", true),
            ("*a*b*", "xxaxxbxx", true),
            ("**", "x", true),
        ] {
            let matches = Glob::new(glob).matches(text.as_bytes());
            assert_eq!(matches, expected, "{glob} on {text}");
        }
    }
}
