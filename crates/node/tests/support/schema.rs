//! The part of JSON Schema that `docs/reference/records.schema.json` uses.

use std::{fs, path::Path, sync::OnceLock};

use serde_json::Value;

/// The documented schema of a line of `--json`.
fn documented() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let path = "../../docs/reference/records.schema.json";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    })
}

/// Panics if a line is not a documented record.
pub fn check(line: &Value) {
    let schema = documented();
    let event = line["event"].as_str().unwrap_or_default();
    let Some(of_event) = schema["$defs"].get(event) else {
        panic!("the schema has no record {event}: {line}");
    };
    if let Err(fault) = is_valid(of_event, line) {
        panic!("{fault}, in {line}");
    }
    humantime_like(line["time"].as_str().unwrap());
}

/// RFC 3339 in UTC with milliseconds, such as `2026-01-31T12:00:00.000Z`.
fn humantime_like(time: &str) {
    let form: String = time
        .chars()
        .map(|letter| if letter.is_ascii_digit() { '0' } else { letter })
        .collect();
    assert_eq!(form, "0000-00-00T00:00:00.000Z", "{time}");
}

fn is_valid(schema: &Value, value: &Value) -> Result<(), String> {
    for (keyword, rule) in schema.as_object().unwrap() {
        let holds = match keyword.as_str() {
            "anyOf" => {
                let ends: Vec<_> = (rule.as_array().unwrap().iter())
                    .map(|one| is_valid(one, value))
                    .collect();
                if ends.iter().all(Result::is_err) {
                    return Err(format!("no shape fits: {ends:?}"));
                }
                true
            }
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "type" => is_of_type(rule.as_str().unwrap(), value),
            "minimum" => value.as_u64().is_some(),
            "items" => {
                let mut items = value.as_array().into_iter().flatten();
                items.try_for_each(|item| is_valid(rule, item))?;
                true
            }
            "required" => {
                let names = rule.as_array().unwrap().iter();
                let missing = names.map(|name| name.as_str().unwrap());
                let missing: Vec<_> = missing.filter(|name| value.get(name).is_none()).collect();
                if !missing.is_empty() {
                    return Err(format!("{missing:?} is missing"));
                }
                true
            }
            "properties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    if let Some(schema) = rule.get(name) {
                        is_valid(schema, field).map_err(|fault| format!("{name}: {fault}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    let is_named = schema
                        .get("properties")
                        .is_some_and(|all| all.get(name).is_some());
                    match rule {
                        Value::Bool(false) if !is_named => {
                            return Err(format!("{name} is not documented"));
                        }
                        Value::Object(_) if !is_named => is_valid(rule, field)?,
                        _ => {}
                    }
                }
                true
            }
            "description" | "format" => true,
            other => panic!("the validator does not know {other}"),
        };
        if !holds {
            return Err(format!("{value} does not fit {keyword} {rule}"));
        }
    }
    Ok(())
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("the validator does not know the type {other}"),
    }
}
