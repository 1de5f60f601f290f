//! The export of `configuration`: from the SDK's plan to the contract's, whose types are generated in the filter's crate.

/// Implements the generated `configuration::Guest`.
#[doc(hidden)]
#[macro_export]
macro_rules! __configuration {
    ($component:ty, $filter:ty, $instance:ident, $bindings:ident) => {
        const _: () = {
            use $bindings::exports::sluicegate::filter::configuration as wit;
            use $crate::__private as sdk;

            impl wit::Guest for $component {
                fn configure(
                    settings: ::std::string::String,
                ) -> ::std::result::Result<wit::Plan, ::std::vec::Vec<wit::Diagnostic>> {
                    match sdk::configure::<$filter>(&settings) {
                        Ok((filter, plan)) => {
                            $instance.with(|instance| instance.put(filter));
                            Ok(plan_to_wit(plan))
                        }
                        Err(problems) => Err(problems
                            .into_iter()
                            .map(|problem| wit::Diagnostic {
                                path: problem.path,
                                message: problem.message,
                                help: problem.help,
                            })
                            .collect()),
                    }
                }
            }

            fn plan_to_wit(plan: $crate::Plan) -> wit::Plan {
                wit::Plan {
                    phases: wit::Phases::from_bits_retain(plan.phases.bits()),
                    match_: plan.matches.into_iter().map(test_to_wit).collect(),
                    request_fields: interest_to_wit(plan.request_fields),
                    response_fields: interest_to_wit(plan.response_fields),
                    pools: plan
                        .pools
                        .into_iter()
                        .map(|pool| wit::PoolUse {
                            name: pool.name,
                            path: pool.path,
                            called: pool.called,
                        })
                        .collect(),
                    first_bytes: plan.first_bytes,
                    facts: wit::Facts::from_bits_retain(plan.facts.bits()),
                    request_body: body_to_wit(plan.request_body),
                    response_body: body_to_wit(plan.response_body),
                    effects: wit::Effects::from_bits_retain(
                        u8::from(plan.effects.http_call) | u8::from(plan.effects.key_value) << 1,
                    ),
                    tick_ms: plan.tick_ms,
                }
            }

            fn body_to_wit(mode: sdk::BodyMode) -> wit::BodyMode {
                match mode {
                    sdk::BodyMode::Skip => wit::BodyMode::Skip,
                    sdk::BodyMode::First(bytes) => wit::BodyMode::First(bytes),
                    sdk::BodyMode::Whole { max, over } => wit::BodyMode::Whole(wit::WholeBody {
                        max,
                        over: match over {
                            sdk::OverCap::Fail => wit::OverCap::Fail,
                            sdk::OverCap::Bypass => wit::OverCap::Bypass,
                            sdk::OverCap::Refuse => wit::OverCap::Refuse,
                        },
                    }),
                    sdk::BodyMode::Watch => wit::BodyMode::Watch,
                    sdk::BodyMode::Transform => wit::BodyMode::Transform,
                }
            }

            fn interest_to_wit(interest: sdk::Interest) -> wit::Interest {
                match interest {
                    sdk::Interest::None => wit::Interest::None,
                    sdk::Interest::Some(names) => wit::Interest::Some(names),
                    sdk::Interest::All => wit::Interest::All,
                }
            }

            fn test_to_wit(test: sdk::Test) -> wit::Test {
                match test {
                    sdk::Test::Method(methods) => wit::Test::Method(methods),
                    sdk::Test::Path(path) => wit::Test::Path(path),
                    sdk::Test::PathPrefix(prefix) => wit::Test::PathPrefix(prefix),
                    sdk::Test::PathGlob(glob) => wit::Test::PathGlob(glob),
                    sdk::Test::Host(glob) => wit::Test::Host(glob),
                    sdk::Test::HeaderPresent(name) => wit::Test::HeaderPresent(name),
                    sdk::Test::HeaderEquals(name, value) => wit::Test::HeaderEquals((name, value)),
                    sdk::Test::HeaderPrefix(name, value) => wit::Test::HeaderPrefix((name, value)),
                    sdk::Test::HeaderContains(name, values) => {
                        wit::Test::HeaderContains((name, values))
                    }
                    sdk::Test::Client(networks) => wit::Test::Client(networks),
                    sdk::Test::All(n) => wit::Test::All(n),
                    sdk::Test::Any(n) => wit::Test::Any(n),
                    sdk::Test::Negate => wit::Test::Negate,
                }
            }
        };
    };
}
