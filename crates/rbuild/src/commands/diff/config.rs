//! What two images say of themselves, field by field.

use std::collections::{BTreeMap, BTreeSet};

use oci::Config;
use serde_json::{Map, Value};

use crate::commands::diff::side::Side;

/// Says of which files an image is made, and when; not how it runs.
const OF_FILES: [&str; 3] = ["created", "rootfs", "history"];

/// A field that is not the same in both.
#[derive(Debug)]
pub(super) struct Field {
    /// `config.Env.PATH`, as `rbuild inspect` and the image spec call it.
    pub(super) name: String,
    pub(super) old: Option<Value>,
    pub(super) new: Option<Value>,
}

/// What differs between the configs; nothing if one of the two is no image.
pub(super) fn compare(old: &Side, new: &Side) -> Vec<Field> {
    let (Some(old), Some(new)) = (&old.config, &new.config) else { return Vec::new() };
    let (mut old, mut new) = (fields(old), fields(new));
    let names: BTreeSet<String> = old.keys().chain(new.keys()).cloned().collect();
    let field = |name: String| Field { old: old.remove(&name), new: new.remove(&name), name };
    names.into_iter().map(field).filter(|field| field.old != field.new).collect()
}

/// Every field by its name; of those that are sets or maps, every member.
fn fields(config: &Config) -> BTreeMap<String, Value> {
    let mut fields = BTreeMap::new();
    for (name, value) in object(serde_json::to_value(config).unwrap_or_default()) {
        if name == "config" {
            for (name, value) in object(value) {
                add(&format!("config.{name}"), value, &mut fields);
            }
        } else if !OF_FILES.contains(&name.as_str()) {
            fields.insert(name, value);
        }
    }
    fields
}

fn add(name: &str, value: Value, fields: &mut BTreeMap<String, Value>) {
    match (name, value) {
        ("config.Env", Value::Array(pairs)) => {
            for pair in pairs.iter().filter_map(Value::as_str) {
                let (variable, value) = pair.split_once('=').unwrap_or((pair, ""));
                fields.insert(format!("{name}.{variable}"), value.into());
            }
        }
        ("config.Labels" | "config.ExposedPorts" | "config.Volumes", Value::Object(members)) => {
            for (member, value) in members {
                fields.insert(format!("{name}.{member}"), value);
            }
        }
        (_, value) => drop(fields.insert(name.to_owned(), value)),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(json: &str) -> Side {
        let text = format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"type":"layers"}},{json}}}"#);
        Side { layers: Vec::new(), config: Some(Config::from_json(text.as_bytes()).unwrap()) }
    }

    #[test]
    fn each_variable_and_label_is_a_field_and_times_are_none() {
        let old = side(
            r#""created":"2020-01-01T00:00:00Z","config":{"Env":["A=1","B=2"],"Cmd":["a"],"Labels":{"x":"1"},"Volumes":{"/d":{}}}"#,
        );
        let new = side(
            r#""created":"2021-01-01T00:00:00Z","config":{"Env":["B=3","A=1"],"Cmd":["a","b"],"User":"app"}"#,
        );
        let text = |value: &Option<Value>| value.as_ref().map_or_else(String::new, ToString::to_string);
        let found = compare(&old, &new);
        let lines: Vec<_> =
            found.iter().map(|f| format!("{}: {} > {}", f.name, text(&f.old), text(&f.new))).collect();
        assert_eq!(
            lines,
            [
                r#"config.Cmd: ["a"] > ["a","b"]"#,
                r#"config.Env.B: "2" > "3""#,
                r#"config.Labels.x: "1" > "#,
                r#"config.User:  > "app""#,
                r#"config.Volumes./d: {} > "#,
            ]
        );
    }
}
