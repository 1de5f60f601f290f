//! Hostile guests: whatever a module is and whatever it does, at load or at run time, has one stated outcome, and
//! nothing else of the process notices.

mod answers;
mod crowd;
mod host;
mod limits;
mod loading;
mod running;
mod verdicts;

use super::guest::{Guest, Phase};

/// Takes all the memory it can have.
const GROW: &str = "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))";

/// The operation that adds a line of a field.
const APPEND: u8 = 2;

/// Runs `bad` for targets of one byte (`/`), and says next for all others: slot 3 is the path.
fn bad_for_root(mut guest: Guest, phase: Phase, bad: &str) -> Guest {
    let next = guest.pair(&[]);
    let (result, next) = match phase {
        Phase::Log => ("", String::new()),
        _ => ("(result i32)", format!("(i32.const {next})")),
    };
    let body = format!(
        "(if {result} (i32.eq (i32.load (i32.add (local.get $head) (i32.const 92))) (i32.const 1))
           (then {bad}) (else {next}))"
    );
    guest.runs(phase, &body)
}

/// Leaves the address of a pair: `pointer` and `length` of what is answered.
fn answering(pointer: u32, length: u32) -> String {
    format!(
        "(i32.store (i32.const 512) (i32.const {pointer})) (i32.store (i32.const 516) (i32.const {length})) (i32.const 512)"
    )
}
