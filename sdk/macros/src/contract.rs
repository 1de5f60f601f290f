//! The WIT package, and worlds cut out of it.

use proc_macro2::TokenStream;
use quote::quote;

const PACKAGE: &str = include_str!("../../../wit/filter.wit");

/// A call of `wit_bindgen::generate!` for a world of these items. `wit_bindgen` is the path to that crate.
pub fn bindings(items: &[String], world: &str, wit_bindgen: TokenStream) -> TokenStream {
    let text = format!(
        "{}\nworld {world} {{ {} }}\n",
        without_comments(PACKAGE),
        items.join(" ")
    );
    let runtime = format!("{wit_bindgen}::rt").replace(' ', "");
    quote! {
        #wit_bindgen::generate!({
            inline: #text,
            // Without it a folder `wit` beside the filter's Cargo.toml would be read.
            path: [],
            world: #world,
            runtime_path: #runtime,
        });
    }
}

/// Comments would travel inside every module.
fn without_comments(wit: &str) -> String {
    wit.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}
