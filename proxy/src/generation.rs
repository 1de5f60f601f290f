//! One immutable snapshot of everything that reload can change, and a worker's view of it.
