//! The JSON schema of records.

use serde_json::{Value, json};

use super::{
    enum_names,
    records::{Field, PARTS, group, records},
};

/// The schema of a type.
fn schema_of(ty: &str) -> Value {
    let inner = |prefix: &str| ty.strip_prefix(prefix)?.strip_suffix('>');
    if let Some(of) = inner("Option<") {
        return json!({"anyOf": [schema_of(of), {"type": "null"}]});
    }
    if let Some(of) = inner("Vec<") {
        return json!({"type": "array", "items": schema_of(of)});
    }
    match ty {
        "bool" => json!({"type": "boolean"}),
        "f64" => json!({"type": "number"}),
        "u16" | "u32" | "u64" | "usize" => json!({"type": "integer", "minimum": 0}),
        "String" | "&'static str" | "PathBuf" | "Multiaddr" | "BlobId" | "ContextId" | "Topic" => {
            json!({"type": "string"})
        }
        "Code" => {
            let codes = enum_names("Code", include_str!("../error.rs"));
            json!({"type": "string", "enum": codes})
        }
        "NetworkConfig" => json!({"type": "object"}),
        "BTreeMap<String, Vec<Origin>>" => {
            let origins = enum_names("Origin", include_str!("../origins.rs"));
            let list = json!({"type": "array", "items": {"type": "string", "enum": origins}});
            json!({"type": "object", "additionalProperties": list})
        }
        // A record in another one has its name, but no time of its own.
        "ConnectionPage" => {
            let mut schema = object(&group(ty), None);
            schema["properties"]["event"] = json!({"const": "peer"});
            schema
        }
        _ => object(&group(ty), None),
    }
}

/// The schema of an object with these fields and no others. `event` is that of a record.
fn object(fields: &[Field], event: Option<&str>) -> Value {
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    if let Some(event) = event {
        properties.insert("event".to_owned(), json!({"const": event}));
        properties.insert(
            "time".to_owned(),
            json!({"type": "string", "format": "date-time"}),
        );
        required.extend(["event", "time"]);
    }
    for Field {
        name,
        docs,
        ty,
        is_required,
    } in fields
    {
        let mut schema = schema_of(ty);
        if !docs.is_empty() {
            schema["description"] = docs.as_str().into();
        }
        properties.insert(name.clone(), schema);
        if *is_required {
            required.push(name);
        }
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The schema of one line of `--json`.
pub(super) fn schema() -> Value {
    let mut shapes = std::collections::BTreeMap::<String, Vec<Value>>::new();
    for (name, source) in PARTS.iter().flat_map(|part| part.types) {
        for record in records(name, source) {
            let mut schema = object(&record.fields, Some(&record.name));
            if !record.docs.is_empty() {
                schema["description"] = record.docs.as_str().into();
            }
            let of_name = shapes.entry(record.name).or_default();
            if !of_name.contains(&schema) {
                of_name.push(schema);
            }
        }
    }
    // Two commands may print records of one name with other fields.
    let defs = shapes.into_iter().map(|(name, mut shapes)| {
        let schema = match shapes.len() {
            1 => shapes.remove(0),
            _ => json!({"anyOf": shapes}),
        };
        (name, schema)
    });
    let defs: serde_json::Map<_, _> = defs.collect();
    let any: Vec<_> = defs
        .keys()
        .map(|name| json!({"$ref": format!("#/$defs/{name}")}))
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of calnet --json",
        "description": "One record on standard output, or a failure on standard error. Generated \
            from the code.",
        "anyOf": any,
        "$defs": defs,
    })
}
