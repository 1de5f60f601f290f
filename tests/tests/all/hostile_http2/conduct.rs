//! Frames that are wrong, or come when they may not.
//!
//! Where RFC 9113 names FRAME_SIZE_ERROR, COMPRESSION_ERROR or STREAM_CLOSED, the h2 crate says PROTOCOL_ERROR.

use super::{Answer, Case, FLOW_CONTROL_ERROR, GET, POST, PROTOCOL_ERROR, run};
use crate::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, cancel, data, data_end, frame, headers,
    headers_open, setting, window_update,
};

const ENDS: Answer = Answer::GoAway(PROTOCOL_ERROR);
const OK: Answer = Answer::Status(200);

fn get1() -> Vec<u8> {
    headers(1, &GET)
}

fn post1() -> Vec<u8> {
    headers_open(1, &POST)
}

#[test]
fn frames_that_are_not_allowed_where_they_come() {
    run(
        "",
        &[
            Case::new("DATA on an idle stream", data(1, b"x"), ENDS),
            Case::new("DATA on stream 0", data(0, b"x"), ENDS),
            Case::new("HEADERS on stream 0", headers(0, &GET), ENDS),
            Case::new("an even stream", headers(2, &GET), ENDS),
            Case::new(
                "a stream below one that began",
                [headers_open(3, &POST), get1()].concat(),
                ENDS,
            ),
            Case::new("RST_STREAM on an idle stream", cancel(1), ENDS),
            Case::new("RST_STREAM on stream 0", cancel(0), ENDS),
            Case::new("WINDOW_UPDATE on an idle stream", window_update(1, 1), ENDS),
            Case::new("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), ENDS),
            Case::new("PING on a stream", frame(PING, 0, 1, &[0; 8]), ENDS),
            Case::new(
                "GOAWAY on a stream",
                frame(frames::GOAWAY, 0, 1, &[0; 8]),
                ENDS,
            ),
            Case::new("PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0; 5]), ENDS),
            Case::new(
                "PUSH_PROMISE",
                [
                    post1(),
                    frame(
                        5,
                        END_HEADERS,
                        1,
                        &[&[0, 0, 0, 2], &block(&GET)[..]].concat(),
                    ),
                ]
                .concat(),
                ENDS,
            ),
            Case::new(
                "CONTINUATION of nothing",
                frame(CONTINUATION, END_HEADERS, 1, &[]),
                ENDS,
            ),
            Case::new(
                "CONTINUATION of another stream",
                {
                    [
                        frame(HEADERS, END_STREAM, 1, &block(&GET)),
                        frame(CONTINUATION, END_HEADERS, 3, &[]),
                    ]
                    .concat()
                },
                ENDS,
            ),
            Case::new(
                "a frame amid a header block",
                {
                    [
                        frame(HEADERS, END_STREAM, 1, &block(&GET)),
                        frame(PING, 0, 0, &[0; 8]),
                    ]
                    .concat()
                },
                ENDS,
            ),
            Case::new(
                "an unknown frame amid a header block",
                {
                    [
                        frame(HEADERS, END_STREAM, 1, &block(&GET)),
                        frame(0x42, 0, 0, b"?"),
                    ]
                    .concat()
                },
                ENDS,
            ),
            Case::new(
                "an acknowledgement of settings nobody sent",
                frame(SETTINGS, ACK, 0, &[]).repeat(2),
                ENDS,
            ),
            Case::new(
                "an acknowledgement of a ping nobody sent",
                [frame(PING, ACK, 0, &[7; 8]), get1()].concat(),
                OK,
            )
            .reaching(1),
            Case::new(
                "an unknown frame",
                [frame(0x42, 0xff, 0, b"?"), get1()].concat(),
                OK,
            )
            .reaching(1),
            Case::new(
                "an unknown setting",
                [setting(0x4242, 7), get1()].concat(),
                OK,
            )
            .reaching(1),
        ],
    );
}

#[test]
fn frames_of_a_wrong_size() {
    run(
        "",
        &[
            Case::new(
                "DATA larger than allowed",
                [post1(), data(1, &[0; 16 * 1024 + 1])].concat(),
                Answer::GoAway(super::FRAME_SIZE_ERROR),
            ),
            Case::new(
                "HEADERS larger than allowed",
                frame(HEADERS, 5, 1, &[0; 16 * 1024 + 1]),
                Answer::GoAway(super::FRAME_SIZE_ERROR),
            ),
            Case::new(
                "the largest frame a head can tell",
                [0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1].to_vec(),
                Answer::GoAway(super::FRAME_SIZE_ERROR),
            ),
            Case::new("PING of 7 bytes", frame(PING, 0, 0, &[0; 7]), ENDS),
            Case::new("SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), ENDS),
            Case::new(
                "an acknowledgement with content",
                frame(SETTINGS, ACK, 0, &[0; 6]),
                ENDS,
            ),
            Case::new(
                "RST_STREAM of 3 bytes",
                [post1(), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
                ENDS,
            ),
            Case::new(
                "WINDOW_UPDATE of 3 bytes",
                frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
                ENDS,
            ),
            Case::new("PRIORITY of 4 bytes", frame(PRIORITY, 0, 1, &[0; 4]), ENDS),
            Case::new(
                "padding beyond DATA",
                [post1(), frame(DATA, PADDED, 1, &[9, 0, 0])].concat(),
                ENDS,
            ),
            Case::new(
                "padding beyond HEADERS",
                frame(HEADERS, PADDED | 5, 1, &[&[200][..], &block(&GET)].concat()),
                ENDS,
            ),
            Case::new(
                "a frame that is all padding",
                [post1(), frame(DATA, PADDED | END_STREAM, 1, &[3, 0, 0, 0])].concat(),
                OK,
            )
            .reaching(1),
        ],
    );
}

#[test]
fn settings_windows_and_priorities_that_are_wrong() {
    run(
        "",
        &[
            Case::new("ENABLE_PUSH of 2", setting(2, 2), ENDS),
            Case::new(
                "INITIAL_WINDOW_SIZE beyond 2^31-1",
                setting(4, 1 << 31),
                ENDS,
            ),
            Case::new("MAX_FRAME_SIZE below 2^14", setting(5, 100), ENDS),
            Case::new("MAX_FRAME_SIZE beyond 2^24-1", setting(5, 1 << 24), ENDS),
            Case::new(
                "a window of 0 more for the connection",
                window_update(0, 0),
                ENDS,
            ),
            Case::new(
                "a window of 0 more for a stream",
                [post1(), window_update(1, 0)].concat(),
                ENDS,
            ),
            Case::new(
                "a connection's window beyond 2^31-1",
                window_update(0, i32::MAX as u32),
                Answer::GoAway(FLOW_CONTROL_ERROR),
            ),
            Case::new(
                "a stream's window beyond 2^31-1",
                [post1(), window_update(1, i32::MAX as u32)].concat(),
                Answer::Reset(FLOW_CONTROL_ERROR),
            ),
            Case::new(
                "more data than a stream's window",
                {
                    let piece = data(1, &[0; 16 * 1024]);
                    [post1(), piece.repeat(5)].concat()
                },
                Answer::Reset(FLOW_CONTROL_ERROR),
            )
            // The connection's window grows when our update is out.
            .or(Answer::GoAway(FLOW_CONTROL_ERROR)),
            Case::new(
                "a stream that depends on itself",
                [post1(), frame(PRIORITY, 0, 1, &[0, 0, 0, 1, 0])].concat(),
                Answer::Reset(PROTOCOL_ERROR),
            ),
            Case::new(
                "HEADERS that depend on themselves",
                {
                    frame(
                        HEADERS,
                        0x25,
                        1,
                        &[&[0, 0, 0, 1, 0], &block(&GET)[..]].concat(),
                    )
                },
                Answer::Reset(PROTOCOL_ERROR),
            ),
            Case::new(
                "data after the end",
                [headers(1, &POST), data(1, b"x")].concat(),
                ENDS,
            ),
            Case::new(
                "a second end",
                [post1(), data_end(1, b"x"), data_end(1, b"x")].concat(),
                ENDS,
            ),
            Case::new(
                "headers after the end",
                [headers(1, &POST), headers(1, &POST)].concat(),
                ENDS,
            ),
        ],
    );
}
