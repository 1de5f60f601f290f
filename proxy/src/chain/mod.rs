//! Filters in order: verdicts and failure policy.
