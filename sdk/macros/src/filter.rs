//! `#[filter]`.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{Error, ImplItem, ItemImpl, Result, Type};

use crate::contract;

/// One phase: the trait's method, the contract's interface and function, the view it takes.
struct Phase {
    method: &'static str,
    variant: &'static str,
    interface: &'static str,
    function: &'static str,
    /// Its number where the host calls in one crossing.
    number: i32,
    view: &'static str,
    answers: bool,
}

const PHASES: [Phase; 13] = [
    Phase {
        method: "request",
        variant: "Request",
        interface: "http-request",
        function: "on_request",
        number: 0,
        view: "Request",
        answers: true,
    },
    Phase {
        method: "response",
        variant: "Response",
        interface: "http-response",
        function: "on_response",
        number: 1,
        view: "Response",
        answers: true,
    },
    Phase {
        method: "log",
        variant: "Log",
        interface: "http-log",
        function: "on_log",
        number: 2,
        view: "Record",
        answers: false,
    },
    Phase {
        method: "connect",
        variant: "Connect",
        interface: "stream-connect",
        function: "on_connect",
        number: 3,
        view: "Stream",
        answers: true,
    },
    Phase {
        method: "client_hello",
        variant: "ClientHello",
        interface: "stream-client-hello",
        function: "on_client_hello",
        number: 4,
        view: "Stream",
        answers: true,
    },
    Phase {
        method: "first_bytes",
        variant: "FirstBytes",
        interface: "stream-first-bytes",
        function: "on_first_bytes",
        number: 5,
        view: "Stream",
        answers: true,
    },
    Phase {
        method: "request_body",
        variant: "RequestBody",
        interface: "http-request-body",
        function: "on_request_body",
        number: 6,
        view: "RequestBody",
        answers: true,
    },
    Phase {
        method: "response_body",
        variant: "ResponseBody",
        interface: "http-response-body",
        function: "on_response_body",
        number: 7,
        view: "ResponseBody",
        answers: true,
    },
    Phase {
        method: "request_trailers",
        variant: "RequestTrailers",
        interface: "http-request-trailers",
        function: "on_request_trailers",
        number: 8,
        view: "RequestTrailers",
        answers: true,
    },
    Phase {
        method: "response_trailers",
        variant: "ResponseTrailers",
        interface: "http-response-trailers",
        function: "on_response_trailers",
        number: 9,
        view: "ResponseTrailers",
        answers: true,
    },
    Phase {
        method: "client_data",
        variant: "ClientData",
        interface: "stream-client-data",
        function: "on_client_data",
        number: 10,
        view: "StreamData",
        answers: true,
    },
    Phase {
        method: "server_data",
        variant: "ServerData",
        interface: "stream-server-data",
        function: "on_server_data",
        number: 11,
        view: "StreamData",
        answers: true,
    },
    Phase {
        method: TICK,
        variant: "Tick",
        interface: "tick",
        function: "on_tick",
        number: 12,
        view: "",
        answers: true,
    },
];

/// The method that is shown nothing and answers nothing.
const TICK: &str = "tick";

pub fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    if !arguments.is_empty() {
        return Err(Error::new(
            arguments.span(),
            "`#[filter]` takes no arguments: the phases are the methods that the impl writes out",
        ));
    }
    let item: ItemImpl = syn::parse2(item.clone()).map_err(|_| {
        Error::new(
            item.span(),
            "`#[filter]` goes on `impl Filter for YourType { … }`",
        )
    })?;
    let name = filter_type(&item)?;
    let phases = phases_of(&item)?;
    let hands_over = methods(&item).any(|method| method == "save" || method == "restore");

    let variants = phases
        .iter()
        .map(|p| Ident::new(p.variant, Span::call_site()));
    let module = guest(&name, &phases, hands_over);
    Ok(quote! {
        #item

        impl ::sluicegate_sdk::Exports for #name {
            const PHASES: ::sluicegate_sdk::Phases =
                ::sluicegate_sdk::Phases::NONE #(.with(::sluicegate_sdk::Phase::#variants))*;
        }

        #module
    })
}

/// The type that the filter is, after checking that this is an impl of `Filter` for a plain type.
fn filter_type(item: &ItemImpl) -> Result<Type> {
    let names_filter = item.trait_.as_ref().is_some_and(|(not, path, _)| {
        not.is_none() && path.segments.last().is_some_and(|s| s.ident == "Filter")
    });
    if !names_filter {
        return Err(Error::new(
            item.self_ty.span(),
            "`#[filter]` goes on `impl Filter for YourType { … }`, not on another impl",
        ));
    }
    if !item.generics.params.is_empty() {
        return Err(Error::new(
            item.generics.span(),
            "a filter has no generic parameters: a module is one concrete filter",
        ));
    }
    Ok((*item.self_ty).clone())
}

fn methods(item: &ItemImpl) -> impl Iterator<Item = &Ident> {
    item.items.iter().filter_map(|item| match item {
        ImplItem::Fn(f) => Some(&f.sig.ident),
        _ => None,
    })
}

fn phases_of(item: &ItemImpl) -> Result<Vec<&'static Phase>> {
    let methods: Vec<&Ident> = methods(item).collect();
    let phases: Vec<&Phase> = PHASES
        .iter()
        .filter(|phase| methods.iter().any(|method| *method == phase.method))
        .collect();
    if phases.is_empty() {
        let names: Vec<String> = PHASES.iter().map(|p| format!("`{}`", p.method)).collect();
        return Err(Error::new(
            item.self_ty.span(),
            format!(
                "this filter takes part in no phase: write at least one of {}",
                names.join(", ")
            ),
        ));
    }
    Ok(phases)
}

/// The exports, compiled for wasm only.
fn guest(name: &Type, phases: &[&Phase], hands_over: bool) -> TokenStream {
    let mut world = vec![
        "export configuration;".to_owned(),
        "export settings-schema;".to_owned(),
        // Any phase may answer later.
        "export resume;".to_owned(),
    ];
    world.extend(phases.iter().map(|p| format!("export {};", p.interface)));
    let handover_numbers = hands_over.then(|| {
        quote! {
            14 => save(),
            15 => restore(block),
        }
    });
    let handover = hands_over.then(handover);
    world.extend(hands_over.then(|| "export handover;".to_owned()));
    let bindings = contract::bindings(
        &world,
        "this-filter",
        quote!(::sluicegate_sdk::__private::wit_bindgen),
    );
    let exports = phases.iter().map(|phase| {
        let interface = format_ident!("{}", phase.interface.replace('-', "_"));
        let function = format_ident!("{}", phase.function);
        let method = format_ident!("{}", phase.method);
        if phase.method == TICK {
            return quote! {
                fn on_tick(_: &[u8]) -> ::std::vec::Vec<u8> {
                    INSTANCE.with(|instance| instance.call(|filter| {
                        <ThisFilter as ::sluicegate_sdk::Filter>::tick(filter).into_bytes()
                    }))
                }

                impl bindings::exports::sluicegate::filter::tick::Guest for Component {
                    fn on_tick(block: ::std::vec::Vec<u8>) -> ::std::vec::Vec<u8> {
                        on_tick(&block)
                    }
                }
            };
        }
        let view = format_ident!("{}", phase.view);
        let (result, finish) = if phase.answers {
            (quote!(-> ::std::vec::Vec<u8>), quote!(.into_bytes()))
        } else {
            (quote!(), quote!())
        };
        quote! {
            fn #function(block: &[u8]) #result {
                INSTANCE.with(|instance| instance.call(|filter| {
                    <ThisFilter as ::sluicegate_sdk::Filter>::#method(
                        filter,
                        &::sluicegate_sdk::#view::new(block),
                    )
                    #finish
                }))
            }

            impl bindings::exports::sluicegate::filter::#interface::Guest for Component {
                fn #function(block: ::std::vec::Vec<u8>) #result {
                    #function(&block)
                }
            }
        }
    });
    let numbered = phases.iter().map(|phase| {
        let number = phase.number;
        let function = format_ident!("{}", phase.function);
        if phase.answers {
            quote!(#number => #function(block),)
        } else {
            quote!(#number => { #function(block); ::std::vec::Vec::new() })
        }
    });
    quote! {
        #[cfg(target_family = "wasm")]
        #[doc(hidden)]
        mod __sluicegate_filter {
            use super::*;

            type ThisFilter = #name;

            #[allow(unsafe_code, missing_docs, clippy::all, clippy::pedantic)]
            mod bindings {
                #bindings
            }

            ::std::thread_local! {
                static INSTANCE: ::sluicegate_sdk::__private::Instance<ThisFilter> =
                    const { ::sluicegate_sdk::__private::Instance::new() };
            }

            struct Component;

            ::sluicegate_sdk::__configuration!(Component, ThisFilter, INSTANCE, bindings);

            impl bindings::exports::sluicegate::filter::settings_schema::Guest for Component {
                fn schema() -> ::std::string::String {
                    ::sluicegate_sdk::__private::schema::<ThisFilter>()
                }
            }

            impl bindings::exports::sluicegate::filter::resume::Guest for Component {
                fn on_resume(block: ::std::vec::Vec<u8>) -> ::std::vec::Vec<u8> {
                    ::sluicegate_sdk::__private::resume(&block)
                }
            }

            #(#exports)*

            /// A host calls nothing that is not exported.
            fn call(function: i32, block: &[u8]) -> ::std::vec::Vec<u8> {
                match function {
                    #(#numbered)*
                    #handover_numbers
                    13 => ::sluicegate_sdk::__private::resume(block),
                    _ => ::std::unreachable!(),
                }
            }

            ::sluicegate_sdk::__one_crossing!(ThisFilter, INSTANCE, call);

            #handover

            #[allow(unsafe_code, clippy::all, clippy::pedantic)]
            mod exported {
                use super::Component;
                super::bindings::export!(Component with_types_in super::bindings);
            }
        }
    }
}

/// The export of `handover`.
fn handover() -> TokenStream {
    quote! {
        fn save() -> ::std::vec::Vec<u8> {
            INSTANCE.with(|instance| instance.call(|filter| {
                ::sluicegate_sdk::__private::save::<ThisFilter>(filter)
            }))
        }

        fn restore(state: &[u8]) -> ::std::vec::Vec<u8> {
            INSTANCE.with(|instance| instance.call(|filter| {
                ::sluicegate_sdk::__private::restore::<ThisFilter>(filter, state)
            }))
        }

        impl bindings::exports::sluicegate::filter::handover::Guest for Component {
            fn save() -> ::std::vec::Vec<u8> {
                save()
            }

            fn restore(state: ::std::vec::Vec<u8>) -> ::std::vec::Vec<u8> {
                restore(&state)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(arguments: &str, item: &str, with: &str) {
        let error = expand(arguments.parse().unwrap(), item.parse().unwrap())
            .expect_err("the macro accepts this");
        assert!(error.to_string().contains(with), "{error}");
    }

    #[test]
    fn misuse_is_explained() {
        refused("", "struct X;", "goes on `impl Filter for YourType");
        refused("", "impl X { }", "not on another impl");
        refused("", "impl Clone for X { }", "not on another impl");
        refused(
            "",
            "impl<T> Filter for X<T> { fn request() {} }",
            "no generic parameters",
        );
        refused(
            "",
            "impl Filter for X { fn configure() {} }",
            "at least one of `request`, `response`, `log`",
        );
        refused(
            "request",
            "impl Filter for X { fn request() {} }",
            "takes no arguments",
        );
    }

    #[test]
    fn the_world_has_the_phases_of_the_impl_and_no_others() {
        let item = "impl Filter for X { fn response() {} fn log() {} fn helper() {} }";
        let text = expand(TokenStream::new(), item.parse().unwrap())
            .unwrap()
            .to_string();
        let world = text.split("world this-filter").nth(1).unwrap();
        let world = world.split('}').next().unwrap();
        for there in [
            "configuration",
            "settings-schema",
            "http-response",
            "http-log",
        ] {
            assert!(world.contains(&format!("export {there};")), "{world}");
        }
        assert!(!world.contains("http-request"), "{world}");
        assert!(!world.contains("handover"), "{world}");
    }
}
