//! The process's surroundings, of which only this room makes use: variables, the working directory, processors.

use crate::config::{Environment, Input};

/// A builder for the configuration `inputs`, with the real environment.
pub fn builder(inputs: Vec<Input>) -> std::io::Result<crate::app::Builder> {
    let vars: crate::app::Vars = Box::new(|name| std::env::var(name).ok());
    Ok(crate::app::Builder::new(
        inputs,
        vars,
        std::env::current_dir()?,
    ))
}

pub fn environment(vars: &dyn Fn(&str) -> Option<String>) -> std::io::Result<Environment<'_>> {
    Ok(Environment {
        vars,
        builtins: crate::builtin::names()
            .iter()
            .map(|name| name.to_string())
            .collect(),
        cwd: std::env::current_dir()?,
        processors: std::thread::available_parallelism().map_or(1, usize::from),
    })
}
