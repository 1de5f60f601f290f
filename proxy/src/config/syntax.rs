//! What is wrong with a text that is no YAML, in the words of people who write it. The scanner's own words are those of
//! YAML's grammar.

/// A mistake: what it is, and what to do.
pub(super) struct Mistake {
    pub message: String,
    pub help: Option<&'static str>,
}

const INDENT: &str = "keys of one map begin in the same column, and so do the `-` of one list";
const BRACKETS: &str = "look for a `[`, `{` or `,` that is missing or too many";
const QUOTE: &str = "put the value into quotes";

/// Words of the scanner, what they mean, and what to do. The first that fits is taken.
const KNOWN: &[(&str, &str, Option<&str>)] = &[
    (
        "tab",
        "there is a tab where the line is indented",
        Some("indent with spaces: YAML allows no tabs there"),
    ),
    (
        "did not find expected '-' indicator",
        "this line is not indented like the others of its list",
        Some(INDENT),
    ),
    (
        "did not find expected key",
        "this line is not indented like the others of its map",
        Some(INDENT),
    ),
    (
        "indentation in quoted scalar",
        "a quote is opened here and not closed on this line",
        Some("close it; the further lines of a long quoted value are indented more than its key"),
    ),
    (
        "indent",
        "this line is not indented as it must be here",
        Some(INDENT),
    ),
    (
        "expected ',' or ']'",
        "a list in brackets does not end as it should: here must be `,` or `]`",
        Some(BRACKETS),
    ),
    (
        "expected ',' or '}'",
        "a map in braces does not end as it should: here must be `,` or `}`",
        Some(BRACKETS),
    ),
    (
        "illegal placement of ':'",
        "a `:` cannot stand here",
        Some("is a `]` or `}` missing on a line above?"),
    ),
    (
        "simple key expect",
        "a key without `:`",
        Some("between a key and its value stand a colon and a space: `key: value`"),
    ),
    (
        "mapping values are not allowed",
        "a second `: ` in one line",
        Some(
            "put a value with a colon and a space in it into quotes; begin each key on a line of its own",
        ),
    ),
    (
        "mapping keys are not allowed",
        "a key cannot stand here",
        Some(INDENT),
    ),
    (
        "block sequence entries are not allowed",
        "a list with `-` cannot begin here",
        Some("begin it on the line after its key, or write `[…]`"),
    ),
    (
        "found unexpected end of stream",
        "a quote is opened here and never closed",
        None,
    ),
    (
        "unexpected eof",
        "the text ends in the middle",
        Some("look for a bracket or a quote that is not closed"),
    ),
    (
        "trailing content after double-quoted",
        "something follows the closing quote",
        Some("write `\\\"` for a quote inside double quotes"),
    ),
    (
        "found unknown escape character",
        "no such escape: `\\` in double quotes begins one",
        Some("write `\\\\` for a backslash, or use single quotes"),
    ),
    (
        "found unknown anchor",
        "`*` refers to an anchor, and there is none of that name above",
        Some("a value that begins with `*` needs quotes"),
    ),
    (
        "alphabetic or numeric character",
        "`&` and `*` begin the name of an anchor",
        Some(QUOTE),
    ),
    (
        "unexpected character",
        "a value cannot begin with this character",
        Some(QUOTE),
    ),
    (
        "did not find expected node content",
        "a value is missing here",
        Some(BRACKETS),
    ),
    (
        "found unprintable character",
        "there is a character that cannot be printed",
        Some("write it as an escape in double quotes: `\"\\x07\"`"),
    ),
];

/// `info` as the scanner says it.
pub(super) fn mistake(info: &str) -> Mistake {
    let known = KNOWN.iter().find(|(words, ..)| info.contains(words));
    match known {
        Some(&(_, message, help)) => Mistake {
            message: message.to_owned(),
            help,
        },
        None => Mistake {
            message: format!("this is no YAML: {info}"),
            help: None,
        },
    }
}
