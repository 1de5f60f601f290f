//! From one generation to the next.

use super::build::{Build, BuildError, Changes};
use super::descriptors;
use super::run_error::RunError;
use super::server::Server;
use crate::admin::{Changed, ReloadAnswer};
use crate::config::render;
use std::sync::PoisonError;
use std::time::Instant;

impl Server {
    /// Builds the next generation and swaps to it; anything wrong leaves the present one serving.
    pub async fn reload(&mut self, why: &str) -> ReloadAnswer {
        let started = Instant::now();
        let from = self.number();
        let (builder, previous) = (self.builder.clone(), self.generation.clone());
        let built = tokio::task::spawn_blocking(move || {
            builder
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .build(previous.as_ref())
        });
        let answer = match built.await {
            Ok(Ok(build)) => self.swap(build).await,
            Ok(Err(error)) => {
                if let Some(watch) = &mut self.followers.watch {
                    watch.follow(&error.watched);
                }
                Err(refused(from, &error))
            }
            Err(panicked) => Err(ReloadAnswer::refused(
                from,
                serde_json::json!([]),
                format!("the reload failed: {panicked}\n"),
            )),
        };
        match answer {
            Ok((changes, warnings, text)) => {
                if changes.listeners > 0
                    && let Some(generation) = &self.generation
                {
                    descriptors::warn(&generation.config);
                }
                let took = started.elapsed();
                let changed = Changed {
                    listeners: changes.listeners,
                    filters: changes.filters,
                    pools: changes.pools,
                    sections: changes.sections.into_iter().map(str::to_owned).collect(),
                };
                let mut answer = ReloadAnswer::done(from, self.number(), took, changed);
                if let ReloadAnswer::Done(done) = &mut answer {
                    warn(&text);
                    tracing::info!(why, "{done}");
                    (done.warnings, done.text) = (warnings, text);
                }
                answer
            }
            Err(answer) => {
                self.metrics.reload_failed();
                if let ReloadAnswer::Refused(refused) = &answer {
                    tracing::error!(
                        why,
                        generation = from,
                        "reload refused: the generation that serves goes on\n{}",
                        refused.text.trim_end()
                    );
                }
                answer
            }
        }
    }

    /// With the warnings about the new configuration, for programs and as text.
    async fn swap(
        &mut self,
        build: Build,
    ) -> Result<(Changes, serde_json::Value, String), ReloadAnswer> {
        let from = self.number();
        let changes = build.changes.clone();
        let warnings = render::json(&build.sources, &build.warnings);
        let text = self::warnings(&build);
        let watched = build.watched.clone();
        if let Err(error) = self.put_to_work(build).await {
            // So that mending what was refused makes a reload.
            if let Some(watch) = &mut self.followers.watch {
                watch.follow(&watched);
            }
            return Err(refusal(from, error));
        }
        Ok((changes, warnings, text))
    }
}

/// The warnings about a configuration as text; none are no text.
pub fn warnings(build: &Build) -> String {
    match build.warnings.is_empty() {
        true => String::new(),
        false => render::text(&build.sources, &build.warnings, render::Colour::Never),
    }
}

/// Tells the log what is odd about a configuration.
pub fn warn(warnings: &str) {
    if !warnings.is_empty() {
        tracing::warn!("the configuration has warnings\n{}", warnings.trim_end());
    }
}

fn refusal(generation: u64, error: RunError) -> ReloadAnswer {
    match error {
        RunError::Config(error) | RunError::Placed(error) => refused(generation, &error),
        RunError::System(error) => {
            let text = format!("error: {error:#}\n");
            ReloadAnswer::refused(generation, serde_json::json!([]), text)
        }
    }
}

fn refused(generation: u64, error: &BuildError) -> ReloadAnswer {
    let json = render::json(&error.sources, &error.diagnostics);
    ReloadAnswer::refused(
        generation,
        json,
        render::text(&error.sources, &error.diagnostics, render::Colour::Never),
    )
}
