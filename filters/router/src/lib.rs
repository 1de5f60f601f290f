//! Placeholder until the filter is written.
use sluicegate_sdk::*;

#[sluicegate_sdk::settings]
pub struct Settings {}

pub struct Placeholder;

#[sluicegate_sdk::filter]
impl Filter for Placeholder {
    type Settings = Settings;

    fn configure(_: Settings, _: &mut Setup) -> Result<Self, Diagnostics> {
        Ok(Self)
    }

    fn request(&mut self, _: &Request<'_>) -> RequestVerdict {
        RequestVerdict::next()
    }

    fn response(&mut self, _: &Response<'_>) -> ResponseVerdict {
        ResponseVerdict::next()
    }
}
