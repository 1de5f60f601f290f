//! x
use std::cell::RefCell;
use crate::log::Level;
thread_local! { static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) }; }
pub(crate) fn collect(level: Level, message: String) { LINES.with(|l| l.borrow_mut().push((level, message))); }
