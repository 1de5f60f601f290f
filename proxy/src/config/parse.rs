//! YAML text to tree, with every bound that keeps a hostile text harmless.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::diagnostic::{DIAGNOSTICS_MAX, Diagnostic, quoted, ticked};
use super::model::ConfigPath;
use super::node::{Entry, Key, Location, Node, NodeValue, Scalar};
use super::syntax;

/// Bytes of one file.
pub const TEXT_MAX: usize = 16 << 20;
/// Lists and maps inside each other.
const DEPTH_MAX: usize = 64;
/// Values and keys of one file as written.
const VALUES_MAX: usize = 1_000_000;
/// What aliases and merge keys may add, in bytes of text plus [`VALUE_COST`] a value.
const EXPANSION_MAX: usize = 16 << 20;
const VALUE_COST: usize = 64;

/// Parses the one document of `text`. Findings go to `found`; the tree is missing when there is none to look at.
/// `text` has line feeds only (`source::normalise`).
pub(super) fn parse(file: u32, text: &str, found: &mut Vec<Diagnostic>) -> Option<Node> {
    let mut builder = Builder {
        file,
        frames: Vec::new(),
        anchors: HashMap::new(),
        values: 0,
        expanded: 0,
        documents: 0,
        root: None,
        found,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let step = match event {
            Ok((event, span)) => builder.event(event, span),
            Err(error) => Err(builder.syntax(error.marker(), error.info())),
        };
        if let Err(diagnostic) = step {
            builder.found.push(*diagnostic);
            return None;
        }
    }
    let root = builder.root.take()?;
    Some(Arc::unwrap_or_clone(root))
}

/// A finding after which there is no tree.
type Fatal = Box<Diagnostic>;

struct Builder<'f> {
    file: u32,
    frames: Vec<Frame>,
    anchors: HashMap<usize, Anchored>,
    values: usize,
    expanded: usize,
    documents: usize,
    root: Option<Arc<Node>>,
    found: &'f mut Vec<Diagnostic>,
}

/// A list or map that is still open.
struct Frame {
    at: Location,
    anchor: usize,
    cost: usize,
    content: Content,
}

enum Content {
    List(Vec<Arc<Node>>),
    Map {
        entries: Vec<(Key, Placed)>,
        key: Option<Key>,
    },
}

/// A finished value and what it costs to spell out.
#[derive(Clone)]
struct Placed {
    node: Arc<Node>,
    cost: usize,
}

type Anchored = Placed;

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Fatal> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let help = "remove the `---`, or put the second document into a file of its own and pass both with -c";
                    let fatal = *self.fatal("several-documents", "a file holds one document", span);
                    return Err(Box::new(fatal.help(help)));
                }
                Ok(())
            }
            Event::Alias(anchor) => {
                let Some(target) = self.anchors.get(&anchor).cloned() else {
                    return Err(self.fatal(
                        "alias-recursion",
                        "this alias refers to the value it is part of",
                        span,
                    ));
                };
                self.expand(target.cost, span)?;
                self.place(target, span)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !self.is_text(tag.as_deref(), span)?;
                let cost = VALUE_COST + text.len();
                let scalar = Scalar {
                    text: text.into_owned(),
                    plain,
                    secret: false,
                };
                let node = Node {
                    at: self.location(span),
                    value: NodeValue::Scalar(scalar),
                };
                self.finish(node, cost, anchor, span)
            }
            Event::SequenceStart(anchor, tag) => {
                self.is_text(tag.as_deref(), span)?;
                self.open(Content::List(Vec::new()), anchor, span)
            }
            Event::MappingStart(anchor, tag) => {
                self.is_text(tag.as_deref(), span)?;
                self.open(
                    Content::Map {
                        entries: Vec::new(),
                        key: None,
                    },
                    anchor,
                    span,
                )
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
        }
    }

    fn open(&mut self, content: Content, anchor: usize, span: Span) -> Result<(), Fatal> {
        if self.frames.len() == DEPTH_MAX {
            let message = format!("lists and maps are nested more than {DEPTH_MAX} deep");
            return Err(self.fatal("too-deep", message, span));
        }
        let at = self.location(span);
        self.frames.push(Frame {
            at,
            anchor,
            cost: VALUE_COST,
            content,
        });
        Ok(())
    }

    fn close(&mut self, span: Span) -> Result<(), Fatal> {
        let Some(frame) = self.frames.pop() else {
            return Err(self.fatal("syntax", "unbalanced brackets", span));
        };
        let end = self.location(span);
        let mut at = frame.at;
        (at.end_line, at.end_column) = (end.end_line, end.end_column);
        let (value, cost) = match frame.content {
            Content::List(items) => (NodeValue::List(items), frame.cost),
            Content::Map { entries, .. } => {
                let (entries, added) = self.merge(entries, span)?;
                (NodeValue::Map(entries), frame.cost.saturating_add(added))
            }
        };
        self.finish(Node { at, value }, cost, frame.anchor, span)
    }

    fn finish(&mut self, node: Node, cost: usize, anchor: usize, span: Span) -> Result<(), Fatal> {
        self.values += 1;
        if self.values > VALUES_MAX {
            let message = format!("more than {VALUES_MAX} values in one file");
            return Err(self.fatal("too-large", message, span));
        }
        let placed = Placed {
            node: Arc::new(node),
            cost,
        };
        if anchor != 0 {
            self.anchors.insert(anchor, placed.clone());
        }
        self.place(placed, span)
    }

    fn place(&mut self, placed: Placed, span: Span) -> Result<(), Fatal> {
        let here = self.location(span);
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(placed.node);
            return Ok(());
        };
        frame.cost = frame.cost.saturating_add(placed.cost);
        match &mut frame.content {
            Content::List(items) => items.push(placed.node),
            Content::Map { entries, key } => match key.take() {
                Some(key) => entries.push((key, placed)),
                None => match &placed.node.value {
                    NodeValue::Scalar(scalar) => {
                        *key = Some(Key {
                            text: scalar.text.as_str().into(),
                            at: here,
                        })
                    }
                    _ => {
                        return Err(self.fatal(
                            "complex-key",
                            "a key is a scalar, not a list or a map",
                            span,
                        ));
                    }
                },
            },
        }
        Ok(())
    }

    /// Refuses duplicate keys and folds `<<` in. Answers the entries and what the folding added to their cost.
    fn merge(
        &mut self,
        entries: Vec<(Key, Placed)>,
        span: Span,
    ) -> Result<(Vec<Entry>, usize), Fatal> {
        let (merges, own): (Vec<_>, Vec<_>) =
            entries.into_iter().partition(|(key, _)| &*key.text == "<<");
        let mut known: HashMap<Arc<str>, Location> = HashMap::with_capacity(own.len());
        let mut out = Vec::with_capacity(own.len());
        for (key, placed) in own {
            if let Some(first) = known.get(&key.text) {
                if self.found.len() < DIAGNOSTICS_MAX {
                    let path = self.path().join(&key.text);
                    let message = format!("key {} is given twice", ticked(&key.text));
                    self.found.push(
                        Diagnostic::error("duplicate-key", message)
                            .at(&path, key.at)
                            .label(*first, "first given here"),
                    );
                }
                continue;
            }
            known.insert(key.text.clone(), key.at);
            out.push(Entry {
                key,
                value: placed.node,
            });
        }
        let mut added = 0usize;
        for (key, placed) in merges {
            let sources: Vec<Arc<Node>> = match &placed.node.value {
                NodeValue::List(items) => items.clone(),
                _ => vec![placed.node.clone()],
            };
            for source in sources {
                let Some(inherited) = source.map() else {
                    let message = "`<<` takes a map or a list of maps";
                    let path = self.path().join("<<");
                    return Err(Box::new(
                        Diagnostic::error("merge-key", message).at(&path, key.at),
                    ));
                };
                for entry in inherited {
                    if !known.contains_key(&entry.key.text) {
                        added = added.saturating_add(VALUE_COST);
                        self.expand(VALUE_COST, span)?;
                        known.insert(entry.key.text.clone(), entry.key.at);
                        out.push(entry.clone());
                    }
                }
            }
        }
        Ok((out, added))
    }

    fn expand(&mut self, cost: usize, span: Span) -> Result<(), Fatal> {
        self.expanded = self.expanded.saturating_add(cost);
        if self.expanded > EXPANSION_MAX {
            let message = format!("aliases spell out to more than {} MiB", EXPANSION_MAX >> 20);
            return Err(self.fatal("alias-expansion", message, span));
        }
        Ok(())
    }

    /// Whether the tag makes the scalar text. The tags of YAML's own types say nothing new; others are refused.
    fn is_text(&self, tag: Option<&Tag>, span: Span) -> Result<bool, Fatal> {
        let Some(tag) = tag else { return Ok(false) };
        match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
            (true, "str") => Ok(true),
            (true, "map" | "seq" | "int" | "float" | "bool" | "null") => Ok(false),
            (false, "") if tag.handle == "!" || tag.handle.is_empty() => Ok(true),
            (false, "!") => Ok(true),
            _ => Err(self.fatal(
                "unknown-tag",
                format!("tag {} has no meaning here", quoted(&tag.to_string())),
                span,
            )),
        }
    }

    /// The path of the innermost open value.
    fn path(&self) -> ConfigPath {
        let mut path = ConfigPath::default();
        for frame in &self.frames {
            path = match &frame.content {
                Content::List(items) => path.join(items.len()),
                Content::Map { key: Some(key), .. } => path.join(&key.text),
                Content::Map { key: None, .. } => path,
            };
        }
        path
    }

    fn fatal(&self, code: &'static str, message: impl Into<String>, span: Span) -> Fatal {
        Box::new(Diagnostic::error(code, message).at(&self.path(), self.location(span)))
    }

    fn syntax(&self, at: &Marker, info: &str) -> Fatal {
        // The scanner runs ahead of us by a few brackets and has a bound of its own.
        if info.contains("recursion limit") {
            let message = format!("lists and maps are nested more than {DEPTH_MAX} deep");
            return self.fatal("too-deep", message, Span::new(*at, *at));
        }
        let mistake = syntax::mistake(info);
        let fatal = *self.fatal("syntax", mistake.message, Span::new(*at, *at));
        Box::new(match mistake.help {
            Some(help) => fatal.help(help),
            None => fatal,
        })
    }

    fn location(&self, span: Span) -> Location {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Location {
            file: self.file,
            line: narrow(span.start.line()).max(1),
            column: narrow(span.start.col()).saturating_add(1),
            end_line: narrow(span.end.line()).max(1),
            end_column: narrow(span.end.col()).saturating_add(1),
        }
    }
}
