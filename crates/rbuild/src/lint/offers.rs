//! What a Dockerfile offers, for `--call=outline` and `--call=targets`: for a person as buildx prints it, for a program in its shape.

use dockerfile::Source;
use plan::{Outline, OutlineMount, Presence, Target};
use serde_json::{Map, Value, json};

use super::show::{Location, encoded};
use crate::cli::Format;
use crate::failure::Failure;
use crate::listing::{print_json, table, write_out};
use crate::terminal::one_line;

/// Prints what the build of a target takes.
pub(crate) fn print_outline(outline: &Outline, source: &Source, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => print_json(&outline_document(outline, source)),
        Format::Table => write_out(&outline_text(outline)),
    }
}

/// Prints the targets.
pub(crate) fn print_targets(targets: &[Target<'_>], source: &Source, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => print_json(&targets_document(targets, source)),
        Format::Table => {
            let rows: Vec<_> = targets
                .iter()
                .map(|target| vec![target_name(target), one_line(target.description.unwrap_or_default())])
                .collect();
            write_out(&table(&["TARGET", "DESCRIPTION"], &rows))
        }
    }
}

fn target_name(target: &Target<'_>) -> String {
    match (target.name, target.is_default) {
        (Some(name), true) => format!("{name} (default)"),
        (Some(name), false) => name.to_owned(),
        (None, true) => "(default)".to_owned(),
        (None, false) => String::new(),
    }
}

fn outline_text(outline: &Outline) -> String {
    let mut parts = Vec::new();
    if outline.name.is_some() || outline.description.is_some() {
        let mut text = format!("TARGET: {}\n", outline.name.as_deref().unwrap_or("(default)"));
        if let Some(description) = &outline.description {
            text.push_str(&format!("DESCRIPTION: {}\n", one_line(description)));
        }
        parts.push(text);
    }
    let mut list = |headings: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            parts.push(table(headings, &rows));
        }
    };
    let text = |text: &Option<String>| one_line(text.as_deref().unwrap_or_default());
    let args =
        outline.args.iter().map(|arg| vec![one_line(&arg.name), text(&arg.value), text(&arg.description)]);
    list(&["BUILD ARG", "VALUE", "DESCRIPTION"], args.collect());
    list(&["SECRET", "REQUIRED"], mount_rows(&outline.secrets));
    list(&["SSH", "REQUIRED"], mount_rows(&outline.ssh));
    list(&["CACHE"], outline.cache.iter().map(|cache| vec![one_line(&cache.id)]).collect());
    parts.join("\n")
}

fn mount_rows(mounts: &[OutlineMount]) -> Vec<Vec<String>> {
    let required = |mount: &OutlineMount| match mount.presence {
        Presence::Required => "true",
        Presence::Optional => "",
    };
    mounts.iter().map(|mount| vec![one_line(&mount.id), required(mount).to_owned()]).collect()
}

fn outline_document(outline: &Outline, source: &Source) -> Value {
    let mut document = Map::new();
    put(&mut document, "name", outline.name.as_deref());
    put(&mut document, "description", outline.description.as_deref());
    let args = outline.args.iter().map(|arg| {
        let mut object = Map::from_iter([("name".to_owned(), json!(arg.name))]);
        put(&mut object, "description", arg.description.as_deref());
        put(&mut object, "value", arg.value.as_deref().filter(|value| !value.is_empty()));
        put(&mut object, "location", Some(Location::of(source, arg.span)));
        Value::from(object)
    });
    put_list(&mut document, "args", args.collect());
    put_list(&mut document, "secrets", mounts(&outline.secrets, source));
    put_list(&mut document, "ssh", mounts(&outline.ssh, source));
    let cache = outline
        .cache
        .iter()
        .map(|cache| json!({ "ID": cache.id, "location": Location::of(source, cache.span) }));
    put_list(&mut document, "cache", cache.collect());
    put_list(&mut document, "sources", vec![json!(encoded(source))]);
    document.into()
}

fn mounts(mounts: &[OutlineMount], source: &Source) -> Vec<Value> {
    let object = |mount: &OutlineMount| {
        let mut object = Map::from_iter([("name".to_owned(), json!(mount.id))]);
        put(&mut object, "required", (mount.presence == Presence::Required).then_some(true));
        put(&mut object, "location", Some(Location::of(source, mount.span)));
        Value::from(object)
    };
    mounts.iter().map(object).collect()
}

fn targets_document(targets: &[Target<'_>], source: &Source) -> Value {
    let object = |target: &Target<'_>| {
        let mut object = Map::new();
        put(&mut object, "name", target.name);
        put(&mut object, "default", target.is_default.then_some(true));
        put(&mut object, "description", target.description);
        put(&mut object, "base", Some(target.base));
        put(&mut object, "platform", target.platform);
        put(&mut object, "location", Some(Location::of(source, target.span)));
        Value::from(object)
    };
    let list: Vec<_> = targets.iter().map(object).collect();
    json!({ "targets": list, "sources": [encoded(source)] })
}

/// What is absent has no key, as in Go.
fn put(object: &mut Map<String, Value>, key: &str, value: Option<impl serde::Serialize>) {
    if let Some(value) = value {
        object.insert(key.to_owned(), json!(value));
    }
}

fn put_list(object: &mut Map<String, Value>, key: &str, list: Vec<Value>) {
    if !list.is_empty() {
        object.insert(key.to_owned(), list.into());
    }
}
