//! Keeps the futures of verdicts that come later, by token, and polls each when the host resumes its call.
//!
//! Nothing wakes a future but its results, so that the waker does nothing. A future is polled with a list at hand to
//! which the effects that it begins to await are added; the list becomes the operations of the suspending verdict.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{Error, operation};
use crate::head::Head;
use crate::verdict::SUSPEND;

/// What the host takes in one verdict.
const EFFECTS_MAX: usize = 16;

/// The raw result of one effect.
pub(crate) enum Outcome {
    Done,
    /// Operations: status, fields, body.
    Response(Vec<u8>),
    Value(Vec<u8>),
    NoValue,
    Failed(Error),
}

impl Outcome {
    fn read(code: u8, name: &[u8], value: &[u8]) -> Self {
        match code {
            operation::DONE => Self::Done,
            operation::RESPONSE => Self::Response(value.to_vec()),
            operation::VALUE => Self::Value(value.to_vec()),
            operation::NO_VALUE => Self::NoValue,
            operation::FAILED => Self::Failed(Error::from_word(name)),
            // Of a later contract.
            _ => Self::Failed(Error::Malformed),
        }
    }
}

/// Where an effect finds its result.
pub(crate) type Place = Rc<Cell<Option<Outcome>>>;

/// The future of a verdict, as its block.
pub(crate) type Deciding = Pin<Box<dyn Future<Output = Vec<u8>>>>;

struct Asked {
    operation: Vec<u8>,
    place: Place,
}

/// One verdict that is waited for.
struct Task {
    future: Deciding,
    /// The effects that the host performs now, in order.
    performed: Vec<Place>,
    /// Those for which the last verdict had no room.
    queue: VecDeque<Asked>,
}

#[derive(Default)]
struct Executor {
    tasks: Vec<Option<(u32, Task)>>,
    free: Vec<usize>,
    /// Makes tokens differ that have the same place.
    serial: u32,
    /// Tokens made during the running call: the one that it does not answer with is let go.
    fresh: Vec<u64>,
}

thread_local! {
    static EXECUTOR: RefCell<Executor> = const {
        RefCell::new(Executor { tasks: Vec::new(), free: Vec::new(), serial: 0, fresh: Vec::new() })
    };
    /// What the future that is being polled began to await.
    static ASKED: RefCell<Option<Vec<Asked>>> = const { RefCell::new(None) };
}

impl Executor {
    fn put(&mut self, task: Task) -> u64 {
        self.serial = self.serial.wrapping_add(1).max(1);
        let entry = Some((self.serial, task));
        let at = match self.free.pop() {
            Some(at) => {
                self.tasks[at] = entry;
                at
            }
            None => {
                self.tasks.push(entry);
                self.tasks.len() - 1
            }
        };
        u64::from(self.serial) << 32 | at as u64
    }

    fn take(&mut self, token: u64) -> Option<Task> {
        let at = (token & u64::from(u32::MAX)) as usize;
        let entry = self.tasks.get_mut(at)?;
        if entry.as_ref()?.0 != (token >> 32) as u32 {
            return None;
        }
        self.free.push(at);
        entry.take().map(|(_, task)| task)
    }
}

/// Asks for an effect on behalf of the future that is being polled.
pub(crate) fn ask(operation: Vec<u8>) -> Place {
    let place = Place::default();
    ASKED.with_borrow_mut(|asked| {
        asked
            .as_mut()
            .expect("effects are awaited inside of `later`")
            .push(Asked {
                operation,
                place: place.clone(),
            });
    });
    place
}

/// Begins a verdict: its block, when it is decided without waiting, or one that suspends.
pub(crate) fn begin(future: Deciding) -> Vec<u8> {
    go_on(Task {
        future,
        performed: Vec::new(),
        queue: VecDeque::new(),
    })
}

/// The host's results for one suspended call: what the call answers now.
pub(crate) fn resume(block: &[u8]) -> Vec<u8> {
    let token = Head::new(block).token();
    let task = EXECUTOR.with_borrow_mut(|executor| executor.take(token));
    let mut task = task.expect("the host resumes what is suspended, once");
    let mut cancelled = false;
    let results = operation::read(crate::head::behind_header(block));
    for ((code, name, value), place) in results.zip(task.performed.drain(..)) {
        let outcome = Outcome::read(code, name, value);
        cancelled |= matches!(outcome, Outcome::Failed(Error::Cancelled));
        place.set(Some(outcome));
    }
    if !cancelled {
        let block = go_on(task);
        settle(&block);
        return block;
    }
    for asked in task.queue.drain(..) {
        asked.place.set(Some(Outcome::Failed(Error::Cancelled)));
    }
    let _ = poll(&mut task.future);
    drop(task);
    settle(&[]);
    Vec::new()
}

/// Lets go of what began during this call and is not what `block`, its answer, waits for.
pub(crate) fn settle(block: &[u8]) {
    let fresh = EXECUTOR.with_borrow_mut(|executor| std::mem::take(&mut executor.fresh));
    if fresh.is_empty() {
        return;
    }
    let kept = match block.split_first() {
        Some((&SUSPEND, operations)) => token_of(operations),
        _ => None,
    };
    for token in fresh {
        if Some(token) != kept {
            // Dropped outside, for a future may do what it likes when it is dropped.
            let task = EXECUTOR.with_borrow_mut(|executor| executor.take(token));
            drop(task);
        }
    }
}

fn token_of(operations: &[u8]) -> Option<u64> {
    let mut tokens = operation::read(operations).filter(|(code, ..)| *code == operation::TOKEN);
    let (_, _, value) = tokens.next()?;
    Some(u64::from_le_bytes(value.try_into().ok()?))
}

/// How many verdicts are waited for in this thread.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn waiting() -> usize {
    EXECUTOR.with_borrow(|executor| executor.tasks.iter().flatten().count())
}

fn go_on(mut task: Task) -> Vec<u8> {
    let (decided, asked) = poll(&mut task.future);
    if let Poll::Ready(block) = decided {
        return block;
    }
    task.queue.extend(asked);
    // What nobody awaits any more need not be done.
    task.queue
        .retain(|asked| Rc::strong_count(&asked.place) > 1);
    assert!(
        !task.queue.is_empty(),
        "a verdict waits for something that is no effect of the SDK"
    );
    let mut block = vec![SUSPEND];
    for asked in task.queue.drain(..task.queue.len().min(EFFECTS_MAX)) {
        block.extend_from_slice(&asked.operation);
        task.performed.push(asked.place);
    }
    let token = EXECUTOR.with_borrow_mut(|executor| {
        let token = executor.put(task);
        executor.fresh.push(token);
        token
    });
    operation::write(&mut block, operation::TOKEN, b"", &token.to_le_bytes());
    block
}

/// Polls with a list of its own at hand: one verdict may be made inside of another.
fn poll(future: &mut Deciding) -> (Poll<Vec<u8>>, Vec<Asked>) {
    let outer = ASKED.replace(Some(Vec::new()));
    let decided = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    let asked = ASKED.replace(outer).unwrap_or_default();
    (decided, asked)
}
