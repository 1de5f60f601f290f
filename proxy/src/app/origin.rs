//! Where configuration comes from. A generation is built from what all origins say at that moment; how they come to know,
//! and when they wake control, is theirs.

use crate::config::Input;

/// Something that has a part of the configuration.
pub trait Origin: Send {
    /// Its part, as it is now. Asked at every build, on a thread that may wait for files. Text gets a name by which
    /// diagnostics call it, such as `ingress/default/web`, and goes the way that files go.
    fn next(&mut self) -> Vec<Input>;
}

/// What the command line names: always the same files, whatever they hold by then.
pub struct Named(Vec<Input>);

impl Named {
    /// No inputs stand for the default places.
    pub fn new(inputs: Vec<Input>) -> Self {
        Self(match inputs.is_empty() {
            true => vec![Input::Search],
            false => inputs,
        })
    }
}

impl Origin for Named {
    fn next(&mut self) -> Vec<Input> {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::Builder;
    use crate::config::render;
    use std::sync::{Arc, Mutex};

    /// Has what somebody else writes, as one that watches a cluster does.
    struct Written(Arc<Mutex<Vec<Input>>>);

    impl Origin for Written {
        fn next(&mut self) -> Vec<Input> {
            self.0.lock().unwrap().clone()
        }
    }

    fn text(name: &str, text: &str) -> Input {
        Input::Text {
            name: name.into(),
            text: text.into(),
        }
    }

    #[test]
    fn text_that_no_file_holds_is_configuration_and_named_in_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sluicegate.yaml");
        let listener =
            "listeners: [{name: web, bind: \"127.0.0.1:0\", protocol: http, pool: web}]\n";
        std::fs::write(&file, listener).unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let inputs = vec![Input::Path(file)];
        let mut builder = Builder::new(inputs, Box::new(|_| None), folder.path().to_owned());
        builder.add_origin(Box::new(Written(written.clone())));

        let refused = |builder: &mut Builder| {
            let error = builder.build(None).err().expect("refused");
            render::text(&error.sources, &error.diagnostics, render::Colour::Never)
        };
        assert!(refused(&mut builder).contains("sluicegate.yaml:1:"));

        let bad = "pools:\n  web: {endpoints: [\"10.0.0.1\"]}\n";
        *written.lock().unwrap() = vec![text("ingress/default/web", bad)];
        let told = refused(&mut builder);
        assert!(told.contains("ingress/default/web:2:"), "{told}");

        let good = "pools:\n  web: {endpoints: [\"10.0.0.1:80\"]}\n";
        *written.lock().unwrap() = vec![text("ingress/default/web", good)];
        let first = builder.build(None).ok().expect("built").generation;
        assert_eq!(&*first.config.pools[0].name, "web");

        let more = "pools:\n  api: {endpoints: [\"10.0.0.2:80\"]}\n";
        written
            .lock()
            .unwrap()
            .push(text("service/default/api", more));
        let next = builder.build(Some(&first)).ok().expect("built");
        assert_eq!(next.generation.config.pools.len(), 2);
        assert_eq!(next.changes.pools, 1);
    }
}
