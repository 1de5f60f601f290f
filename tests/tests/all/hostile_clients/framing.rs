//! How long a body is: what two parsers could read differently is refused (RFC 9112 §6).

use super::{Case, hold};

/// A POST of the fields `framing`, with `behind` behind its head.
macro_rules! post {
    ($framing:literal, $behind:literal) => {
        concat!(
            "POST /x HTTP/1.1\r\nHost: x\r\n",
            $framing,
            "\r\n\r\n",
            $behind
        )
    };
}

/// As `post!` of an HTTP/1.0 client.
macro_rules! old_post {
    ($framing:literal, $behind:literal) => {
        concat!(
            "POST /x HTTP/1.0\r\nHost: x\r\n",
            $framing,
            "\r\n\r\n",
            $behind
        )
    };
}

#[test]
#[rustfmt::skip]
fn both_framings_or_an_unclear_one_are_refused() {
    let r = Case::refused;
    hold(&[
        r("length and coding", post!("Content-Length: 5\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), 400),
        r("coding and length", post!("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"), 400),
        r("length and unknown coding", post!("Content-Length: 5\r\nTransfer-Encoding: gzip", "hello"), 400),
        r("length and empty coding", post!("Content-Length: 5\r\nTransfer-Encoding:", "hello"), 400),
        r("coding in 1.0", old_post!("Transfer-Encoding: chunked", "0\r\n\r\n"), 400),
        r("coding and length in 1.0", old_post!("Transfer-Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n"), 400),
        r("unknown coding in 1.0", old_post!("Transfer-Encoding: gzip", ""), 400),
        r("lengths differ", post!("Content-Length: 5\r\nContent-Length: 6", "hello!"), 400),
        r("lengths differ by case of the name", post!("Content-Length: 5\r\ncontent-length: 6", "hello!"), 400),
        r("lengths differ in a list", post!("Content-Length: 5, 6", "hello!"), 400),
        r("lengths differ, one of many", post!("Content-Length: 5, 5\r\nContent-Length: 5,5,4", "hello"), 400),
        r("length with a plus", post!("Content-Length: +5", "hello"), 400),
        r("length with a minus", post!("Content-Length: -1", ""), 400),
        r("length of minus zero", post!("Content-Length: -0", ""), 400),
        r("hexadecimal length", post!("Content-Length: 0x5", "hello"), 400),
        r("length with a point", post!("Content-Length: 5.0", "hello"), 400),
        r("length with an exponent", post!("Content-Length: 5e0", "hello"), 400),
        r("length with an underscore", post!("Content-Length: 1_0", "helloworld"), 400),
        r("length with letters behind", post!("Content-Length: 5 bytes", "hello"), 400),
        r("length of two numbers", post!("Content-Length: 5 5", "hello"), 400),
        r("length in quotes", post!("Content-Length: \"5\"", "hello"), 400),
        r("length in digits of another script", "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: \u{ff15}\r\n\r\nhello", 400),
        r("empty length", post!("Content-Length:", ""), 400),
        r("blank length", post!("Content-Length:  \t ", ""), 400),
        r("empty list element behind", post!("Content-Length: 5,", "hello"), 400),
        r("empty list element before", post!("Content-Length: ,5", "hello"), 400),
        r("vertical tab before the length", post!("Content-Length: \x0b5", "hello"), 400),
        r("form feed behind the length", post!("Content-Length: 5\x0c", "hello"), 400),
        r("length 2^63", post!("Content-Length: 9223372036854775808", ""), 400),
        r("length 2^64", post!("Content-Length: 18446744073709551616", ""), 400),
        r("length 2^64 + 5", post!("Content-Length: 18446744073709551621", "hello"), 400),
        r("length of twenty nines", post!("Content-Length: 99999999999999999999", ""), 400),
        r("length of twenty zeros and a five", post!("Content-Length: 000000000000000000005", "hello"), 400),
        r("folded length", post!("Content-Length:\r\n 5", "hello"), 400),
        r("space before the colon of the length", post!("Content-Length : 5", "hello"), 400),
    ]);
}

#[test]
#[rustfmt::skip]
fn codings_but_a_single_chunked_are_refused() {
    let r = Case::refused;
    let body = "0\r\n\r\n";
    let coding = |field: &str| format!("POST /x HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\n{body}");
    hold(&[
        r("unknown", coding("Transfer-Encoding: gzip"), 501),
        r("unknown before chunked", coding("Transfer-Encoding: gzip, chunked"), 501),
        r("unknown before chunked, two lines", coding("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"), 501),
        r("two unknown", coding("Transfer-Encoding: gzip, deflate"), 501),
        r("two unknown, two lines", coding("Transfer-Encoding: gzip\r\nTransfer-Encoding: deflate"), 501),
        r("identity", coding("Transfer-Encoding: identity"), 501),
        r("identity before chunked", coding("Transfer-Encoding: identity, chunked"), 501),
        r("nearly chunked", coding("Transfer-Encoding: xchunked"), 501),
        r("nearly chunked behind", coding("Transfer-Encoding: chunkedx"), 501),
        r("chunked not last", coding("Transfer-Encoding: chunked, gzip"), 400),
        r("chunked before identity", coding("Transfer-Encoding: chunked, identity"), 400),
        r("chunked not last, two lines", coding("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip"), 400),
        r("chunked twice", coding("Transfer-Encoding: chunked, chunked"), 400),
        r("chunked twice, two lines", coding("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 400),
        r("empty", coding("Transfer-Encoding:"), 400),
        r("empty element before", coding("Transfer-Encoding: , chunked"), 400),
        r("empty element behind", coding("Transfer-Encoding: chunked,"), 400),
        r("with a parameter", coding("Transfer-Encoding: chunked;q=1"), 400),
        r("in quotes", coding("Transfer-Encoding: \"chunked\""), 400),
        r("vertical tab before", coding("Transfer-Encoding: \x0bchunked"), 400),
        r("vertical tab behind", coding("Transfer-Encoding: chunked\x0b"), 400),
        r("form feed before", coding("Transfer-Encoding: \x0cchunked"), 400),
        r("NUL behind", coding("Transfer-Encoding: chunked\0"), 400),
        r("bare CR before", coding("Transfer-Encoding: \rchunked"), 400),
        r("no-break space before", coding("Transfer-Encoding: \u{a0}chunked"), 400),
        r("folded", coding("Transfer-Encoding:\r\n chunked"), 400),
        r("folded with a tab", coding("Transfer-Encoding:\r\n\tchunked"), 400),
        r("folded from the field before", coding("X: y\r\n Transfer-Encoding: chunked"), 400),
        r("space before the colon", coding("Transfer-Encoding : chunked"), 400),
        r("tab before the colon", coding("Transfer-Encoding\t: chunked"), 400),
        Case::refused("space before the name", "POST /x HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: x\r\n\r\n", 400),
    ]);
}

#[test]
#[rustfmt::skip]
fn what_is_unusual_but_clear_is_forwarded_with_one_framing() {
    let s = Case::served;
    let hello = &[("/x", "hello")];
    hold(&[
        s("length twice", post!("Content-Length: 5\r\nContent-Length: 5", "hello"), hello),
        s("length twice in a list", post!("Content-Length: 5, 5", "hello"), hello),
        s("length with a zero before", post!("Content-Length: 05", "hello"), hello),
        s("blanks about the length", post!("Content-Length: \t 5 \t", "hello"), hello),
        s("no blank before the length", post!("Content-Length:5", "hello"), hello),
        s("length in upper case", post!("CONTENT-LENGTH: 5", "hello"), hello),
        s("length zero", post!("Content-Length: 0", ""), &[("/x", "")]),
        s("body of a GET", "GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", hello),
        s("no framing", post!("X: y", ""), &[("/x", "")]),
        s("coding in mixed case", post!("transfer-ENCODING: ChunKed", "5\r\nhello\r\n0\r\n\r\n"), hello),
        s("blanks about the coding", post!("Transfer-Encoding: \t chunked \t", "5\r\nhello\r\n0\r\n\r\n"), hello),
        s("length in 1.0", old_post!("Connection: keep-alive\r\nContent-Length: 5", "hello"), hello),
        s("only resembles the field", post!("Content_Length: 7\r\nTransfer_Encoding: chunked\r\nContent-Length: 5", "hello"), hello),
    ]);
}
