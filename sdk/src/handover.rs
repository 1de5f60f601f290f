//! What an instance hands over when a reload replaces its filter.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A state with the version of its form, which is the filter's to choose: the instance that gets it may be of another build.
///
/// ```
/// use sluicegate_sdk::{NotRestored, Saved};
///
/// let saved = Saved::json(1, &vec![3, 4]).unwrap();
/// assert_eq!(Saved::read_json::<Vec<u32>>(saved.bytes()), Ok(vec![3, 4]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    version: u32,
    bytes: Vec<u8>,
}

impl Saved {
    pub fn new(version: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            version,
            bytes: bytes.into(),
        }
    }

    /// The state as JSON; none when it has no form as JSON, such as a map whose keys are no strings.
    pub fn json<T: Serialize>(version: u32, state: &T) -> Option<Self> {
        let bytes = serde_json::to_vec(state).ok()?;
        Some(Self { version, bytes })
    }

    /// Reads what [`Saved::json`] wrote.
    pub fn read_json<T: DeserializeOwned>(state: &[u8]) -> Result<T, NotRestored> {
        serde_json::from_slice(state).map_err(|error| NotRestored::new(error.to_string()))
    }

    pub fn version(&self) -> u32 {
        self.version
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// As the contract has it.
    pub(crate) fn into_block(self) -> Vec<u8> {
        let mut block = self.version.to_le_bytes().to_vec();
        block.extend(self.bytes);
        block
    }
}

/// Why a state is not taken. The proxy logs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotRestored(pub(crate) String);

impl NotRestored {
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}
