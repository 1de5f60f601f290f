//! Between the fields of a head and the maps of the crate `http`, which HTTP/2 and handlers speak.

use crate::head::Fields;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

/// Fields that were checked already; what `http` refuses all the same is left out.
pub(super) fn header_map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len() + 1);
    for (name, value) in fields.iter() {
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            map.append(name, value);
        }
    }
    map
}

/// The lines of `lines`, in their order.
pub(super) fn fields(lines: &HeaderMap) -> Fields {
    let mut fields = Fields::from_arena(Vec::with_capacity(512));
    for (name, value) in lines {
        fields.append(name.as_str().as_bytes(), value.as_bytes());
    }
    fields
}
