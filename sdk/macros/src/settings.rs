//! `#[settings]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Result};

/// With these, serde does not look at the keys itself.
const NOT_KEYED: [&str; 6] = [
    "transparent",
    "untagged",
    "from",
    "try_from",
    "remote",
    "deny_unknown_fields",
];

pub fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new(
            arguments.span(),
            "`#[settings]` takes no arguments: use `#[serde(…)]` below it",
        ));
    }
    let item: DeriveInput = syn::parse2(item.clone())
        .map_err(|_| Error::new(item.span(), "`#[settings]` goes on a struct or an enum"))?;
    let mut serde = vec![quote!(crate = "::sluicegate_sdk::serde")];
    if !mentions(&item.attrs, &["rename_all"]) {
        serde.push(quote!(rename_all = "kebab-case"));
    }
    match item.data {
        Data::Struct(_) => {}
        Data::Enum(_) if mentions(&item.attrs, &["rename_all_fields"]) => {}
        Data::Enum(_) => serde.push(quote!(rename_all_fields = "kebab-case")),
        Data::Union(_) => {
            return Err(Error::new(
                item.ident.span(),
                "`#[settings]` goes on a struct or an enum",
            ));
        }
    }
    if !mentions(&item.attrs, &NOT_KEYED) {
        serde.push(quote!(deny_unknown_fields));
    }
    Ok(quote! {
        #[derive(
            ::sluicegate_sdk::serde::Deserialize,
            ::sluicegate_sdk::schemars::JsonSchema,
        )]
        #[serde(#(#serde),*)]
        #[schemars(crate = "::sluicegate_sdk::schemars")]
        #item
    })
}

/// Whether a `#[serde(…)]` on the container has one of these keys.
fn mentions(attributes: &[Attribute], keys: &[&str]) -> bool {
    let mut found = false;
    for attribute in attributes {
        if !attribute.path().is_ident("serde") {
            continue;
        }
        // What cannot be parsed here is serde's to complain about.
        let _ = attribute.parse_nested_meta(|meta| {
            found |= keys.iter().any(|key| meta.path.is_ident(key));
            if meta.input.peek(syn::Token![=]) {
                let _: syn::Expr = meta.value()?.parse()?;
            } else if meta.input.peek(syn::token::Paren) {
                let content;
                syn::parenthesized!(content in meta.input);
                let _: TokenStream = content.parse()?;
            }
            Ok(())
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(item: &str) -> String {
        expand(TokenStream::new(), item.parse().unwrap())
            .unwrap()
            .to_string()
            .replace(' ', "")
    }

    #[test]
    fn the_defaults_give_way_to_what_is_written() {
        let plain = expanded("struct S { a: u8 }");
        assert!(plain.contains("rename_all=\"kebab-case\",deny_unknown_fields"));
        let own = expanded("#[serde(default, rename_all = \"snake_case\")] struct S { a: u8 }");
        assert!(!own.contains("kebab-case"));
        let transparent = expanded("#[serde(transparent)] struct S(u8);");
        assert!(!transparent.contains("deny_unknown_fields"));
    }

    #[test]
    fn misuse_is_explained() {
        for item in ["fn f() {}", "union U { a: u8 }"] {
            let error = expand(TokenStream::new(), item.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains("on a struct or an enum"));
        }
    }
}
