//! Instances that one exchange has for itself: `isolation: request`.

use super::seats::Seated;

/// What an exchange has of a filter's instances: nothing where it shares the worker's, or was not called yet. The instance
/// ends with it.
#[derive(Debug, Default)]
pub(super) struct PrivateInstance(Option<Box<NumberedInstance>>);

/// An instance, or the place for one, with the number that suspended calls know it by.
#[derive(Debug, Default)]
pub(super) struct NumberedInstance {
    pub(super) instance: Option<Seated>,
    pub(super) serial: u64,
}

impl PrivateInstance {
    pub(super) fn get(&mut self) -> &mut NumberedInstance {
        self.0.get_or_insert_default()
    }

    /// None where there is none.
    pub(super) fn serial(&self) -> Option<u64> {
        self.0.as_ref().map(|numbered| numbered.serial)
    }
}
