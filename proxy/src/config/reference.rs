//! The reference in Markdown, made from the schema, so that it cannot say anything else than the loader does.

use std::fmt::Write;

use serde_json::Value as Json;

use super::schema::{self, ModuleSchema};
use super::validate;

/// Schemas inside each other; a module's schema may run in circles.
const DEPTH_MAX: usize = 12;

const INTRODUCTION: &str = "\
# Configuration reference

<!-- Made by `sluicegate config reference`; a test keeps it current. -->

Sluicegate reads YAML: `sluicegate.yaml` in the working directory, or `/etc/sluicegate/sluicegate.yaml` together with
`/etc/sluicegate/conf.d/*.yaml`, or what `-c FILE`, `-c DIR` and `-c -` (standard input) name. Several files add up:
entries of `pools` and `filters` and items of `listeners` may be spread over them; every other key stands in one file.

- Unknown and duplicate keys are errors. A key without a value counts as absent.
- A **duration** is a number with a unit: `250ms`, `10s`, `5m`, `1h`, `7d`, or several: `1m30s`.
- A **size** is a number of bytes or has a unit: `64KiB`, `1MiB`, `10MB`.
- Relative paths start at the directory of the file they are written in.
- `${NAME}` in a value is an environment variable, `${NAME:-text}` has a default, `${file:PATH}` is the content of a
  file (for secrets; never shown). `$${` is a literal `${`. Other placeholders, such as `${client.address}`, are left
  to filters. A quoted value stays text; unquoted, it becomes the number or truth value it looks like, but between
  `{}` and `[]` YAML wants the quotes.
- Anchors, aliases and merge keys (`<<`) work within a file.

`sluicegate config schema` prints a JSON Schema for editors, `sluicegate config show` the configuration in effect with
all defaults filled in.
";

/// The whole reference, with a section for the settings of each module.
pub fn reference(modules: &[ModuleSchema]) -> String {
    let root = schema::core();
    let mut out = String::from(INTRODUCTION);
    let sections = [
        "listeners",
        "pools",
        "filters",
        "workers",
        "admin",
        "telemetry",
        "drain",
        "modules",
    ];
    for name in sections {
        let Some(section) = root.pointer(&format!("/properties/{name}")) else {
            continue;
        };
        let _ = write!(out, "\n## `{name}`\n\n{}\n", prose(section));
        let mut rows = Vec::new();
        rows_of(&root, section, name, 0, &mut rows);
        if rows.is_empty() {
            rows.push(row(&root, section, name, false));
        }
        table(&rows, &mut out);
    }
    for (module, own) in modules {
        let _ = write!(out, "\n## Settings of `{module}`\n\n");
        let text = prose(own);
        if !text.is_empty() {
            let _ = writeln!(out, "{text}");
        }
        let mut rows = Vec::new();
        rows_of(own, own, "settings", 0, &mut rows);
        table(&rows, &mut out);
    }
    out
}

struct Row {
    path: String,
    kind: String,
    default: String,
    unit: String,
    description: String,
}

fn table(rows: &[Row], out: &mut String) {
    if rows.is_empty() {
        return;
    }
    out.push_str("\n| key | type | default | unit | meaning |\n| --- | --- | --- | --- | --- |\n");
    for row in rows {
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} | {} |",
            row.path,
            cell(&row.kind),
            cell(&row.default),
            cell(&row.unit),
            cell(&row.description)
        );
    }
}

/// Adds a row for every key below `schema`.
fn rows_of(root: &Json, schema: &Json, path: &str, depth: usize, rows: &mut Vec<Row>) {
    if depth > DEPTH_MAX {
        return;
    }
    let schema = resolved(root, schema);
    if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
        let required: Vec<&str> = strings(schema.get("required"));
        let (first, rest): (Vec<_>, Vec<_>) = properties
            .iter()
            .partition(|(name, _)| required.contains(&name.as_str()));
        for (name, property) in first.into_iter().chain(rest) {
            let path = format!("{path}.{name}");
            rows.push(row(
                root,
                property,
                &path,
                required.contains(&name.as_str()),
            ));
            rows_of(root, property, &path, depth + 1, rows);
        }
    }
    if let Some(each) = schema
        .get("additionalProperties")
        .filter(|each| each.is_object())
    {
        rows_of(root, each, &format!("{path}.NAME"), depth + 1, rows);
    }
    if let Some(each) = schema.get("items") {
        rows_of(root, each, &format!("{path}[]"), depth + 1, rows);
    }
    for branch in branches(schema) {
        // A list of filters may hold whole filters; those have a section of their own.
        let is_filter = branch
            .get("$ref")
            .is_some_and(|target| target == "#/$defs/Filter");
        if !is_filter {
            rows_of(root, branch, path, depth + 1, rows);
        }
    }
}

fn row(root: &Json, schema: &Json, path: &str, required: bool) -> Row {
    let target = resolved(root, schema);
    let default = match schema.get("default").or_else(|| target.get("default")) {
        _ if required => "required".to_owned(),
        None | Some(Json::Object(_)) => String::new(),
        Some(Json::Array(items)) if items.is_empty() => "none".to_owned(),
        Some(Json::String(text)) => format!("`{text}`"),
        Some(other) => format!("`{other}`"),
    };
    let format = schema
        .get("format")
        .or_else(|| target.get("format"))
        .and_then(Json::as_str);
    let unit = match (schema.get("x-unit").and_then(Json::as_str), format) {
        (Some(unit), _) => unit,
        (None, Some("duration")) => "time",
        (None, Some("size")) => "bytes",
        (None, _) => "",
    };
    let mut description = prose(schema);
    if description.is_empty() {
        description = prose(target);
    }
    let place = items(root, target).unwrap_or(target);
    for branch in branches(place) {
        if let (Some(value), Some(text)) = (
            branch.get("const").and_then(Json::as_str),
            description_of(branch),
        ) {
            let _ = write!(
                description,
                "{}`{value}`: {text}",
                if description.is_empty() { "" } else { "<br>" }
            );
        }
    }
    Row {
        path: path.to_owned(),
        kind: kind(root, target) + &range(target),
        default,
        unit: unit.to_owned(),
        description,
    }
}

fn kind(root: &Json, schema: &Json) -> String {
    match items(root, schema) {
        Some(each) if schema.get("type").is_some_and(|name| name == "array") => {
            format!("list of: {}", kind(root, each))
        }
        _ if !["type", "enum", "const", "anyOf", "oneOf", "$ref"]
            .iter()
            .any(|word| schema.get(word).is_some()) =>
        {
            "anything".to_owned()
        }
        _ => validate::describe(root, schema)
            .replace(" such as `10s`", "")
            .replace(" such as `64KiB`", ""),
    }
}

fn range(schema: &Json) -> String {
    match (schema.get("minimum"), schema.get("maximum")) {
        (Some(least), Some(most)) => format!(", {least} to {most}"),
        _ => String::new(),
    }
}

fn items<'a>(root: &'a Json, schema: &'a Json) -> Option<&'a Json> {
    schema.get("items").map(|each| resolved(root, each))
}

fn branches(schema: &Json) -> impl Iterator<Item = &Json> {
    ["oneOf", "anyOf"]
        .into_iter()
        .filter_map(|word| schema.get(word)?.as_array())
        .flatten()
}

fn resolved<'a>(root: &'a Json, schema: &'a Json) -> &'a Json {
    let mut schema = schema;
    for _ in 0..DEPTH_MAX {
        let target = schema
            .get("$ref")
            .and_then(Json::as_str)
            .and_then(|target| target.strip_prefix('#'));
        match target.and_then(|pointer| root.pointer(pointer)) {
            Some(target) => schema = target,
            None => break,
        }
    }
    schema
}

fn strings(list: Option<&Json>) -> Vec<&str> {
    list.and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect()
}

fn description_of(schema: &Json) -> Option<&str> {
    schema.get("description").and_then(Json::as_str)
}

fn prose(schema: &Json) -> String {
    description_of(schema).unwrap_or_default().to_owned()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}
