//! The attribute macros of `sluicegate-sdk`. Use them through that crate.

use proc_macro::TokenStream;

mod contract;
mod filter;
mod settings;

/// Makes a filter of `impl Filter for X`: exports its configuration, the schema of its settings, and exactly the phases
/// that the impl writes out, for `wasm32-unknown-unknown` and `wasm32-wasip2`. Once per crate.
///
/// It writes the `unsafe` code of the exports, so that the crate can `deny(unsafe_code)` but not `forbid` it.
#[proc_macro_attribute]
pub fn filter(arguments: TokenStream, item: TokenStream) -> TokenStream {
    filter::expand(arguments.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Makes a struct or enum usable as settings: derives `Deserialize` and `JsonSchema`, names keys in kebab-case and
/// refuses unknown ones. Doc comments become descriptions in the schema; `#[serde(…)]` and `#[schemars(…)]` work as usual,
/// and a `#[serde(rename_all = …)]` of your own wins.
#[proc_macro_attribute]
pub fn settings(arguments: TokenStream, item: TokenStream) -> TokenStream {
    settings::expand(arguments.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Bindings of one imported interface, for the SDK itself.
#[doc(hidden)]
#[proc_macro]
pub fn __import_bindings(interface: TokenStream) -> TokenStream {
    contract::bindings(
        &[format!("import {interface};")],
        &format!("{interface}-user"),
        quote::quote!(::wit_bindgen),
    )
    .into()
}

/// Bindings of the `log` capability, for the SDK itself.
#[doc(hidden)]
#[proc_macro]
pub fn __log_bindings(_: TokenStream) -> TokenStream {
    contract::bindings(
        &["import log;".to_owned()],
        "log-user",
        quote::quote!(::wit_bindgen),
    )
    .into()
}
