//! The JSON Schema of the configuration, for validation, editors and the reference.

use serde_json::{Map, Value as Json, json};

use super::raw::RawConfig;

/// A module's name as YAML writes it (`builtin:router`) and the JSON Schema of its settings.
pub type ModuleSchema = (String, Json);

/// The schema of the file itself; `settings` of filters may be anything.
pub(super) fn core() -> Json {
    let mut schema = schemars::schema_for!(RawConfig).to_value();
    tidy(&mut schema);
    schema
}

/// The schema with the settings of each module merged in, for editors.
pub fn schema(modules: &[ModuleSchema]) -> Json {
    let mut schema = core();
    let mut rules = Vec::new();
    let mut settings = Map::new();
    for (module, own) in modules {
        let place = format!(
            "settings-{}",
            module.replace([':', '/', '~', '%', '#'], "-")
        );
        let mut own = own.clone();
        rebase(&mut own, &format!("#/$defs/{place}"));
        rules.push(json!({
            "if": {"properties": {"module": {"const": module}}, "required": ["module"]},
            "then": {"properties": {"settings": {"$ref": format!("#/$defs/{place}")}}},
        }));
        settings.insert(place, own);
    }
    if let Some(definitions) = schema.get_mut("$defs").and_then(Json::as_object_mut) {
        if let Some(filter) = definitions.get_mut("Filter").and_then(Json::as_object_mut)
            && !rules.is_empty()
        {
            filter.insert("allOf".into(), rules.into());
        }
        definitions.extend(settings);
    }
    schema
}

/// Takes out what only Rust cares about: `null` for absent keys, number formats, defaults that say nothing.
fn tidy(schema: &mut Json) {
    each_subschema(schema, &mut tidy);
    let Some(keywords) = schema.as_object_mut() else {
        return;
    };
    if let Some(Json::Array(types)) = keywords.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            keywords.insert("type".into(), only);
        }
    }
    if let Some(Json::Array(branches)) = keywords.get_mut("anyOf") {
        branches.retain(|branch| branch.get("type").is_none_or(|name| name != "null"));
        if let [Json::Object(only)] = branches.as_slice() {
            let only = only.clone();
            keywords.remove("anyOf");
            for (name, value) in only {
                keywords.entry(name).or_insert(value);
            }
        }
    }
    if keywords.get("default").is_some_and(Json::is_null) {
        keywords.remove("default");
    }
    if keywords
        .get("format")
        .is_some_and(|format| format != "duration" && format != "size")
    {
        keywords.remove("format");
    }
}

/// Makes the references of a schema that is put inside another one point to where it went.
fn rebase(schema: &mut Json, base: &str) {
    each_subschema(schema, &mut |schema| rebase(schema, base));
    let Some(keywords) = schema.as_object_mut() else {
        return;
    };
    keywords.remove("$schema");
    keywords.remove("$id");
    if let Some(Json::String(target)) = keywords.get_mut("$ref")
        && let Some(fragment) = target.strip_prefix('#')
    {
        *target = format!("{base}{fragment}");
    }
}

/// Visits the schemas directly inside a schema, and nothing that only looks like one (defaults, property names).
fn each_subschema(schema: &mut Json, visit: &mut dyn FnMut(&mut Json)) {
    let Some(keywords) = schema.as_object_mut() else {
        return;
    };
    for (name, value) in keywords {
        match (name.as_str(), value) {
            (
                "properties" | "patternProperties" | "$defs" | "definitions",
                Json::Object(schemas),
            ) => {
                schemas.values_mut().for_each(&mut *visit);
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems", Json::Array(schemas)) => {
                schemas.iter_mut().for_each(&mut *visit);
            }
            (
                "items" | "additionalProperties" | "not" | "if" | "then" | "else" | "contains",
                schema,
            ) => visit(schema),
            _ => {}
        }
    }
}
