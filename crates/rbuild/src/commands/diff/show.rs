//! Differences as lines for a person, and as a document for a program.

use layer::compare::{Aspect, Difference};
use layer::{Entry, Kind};
use serde_json::{Value, json};

use crate::commands::diff::config::Field;
use crate::failure::Failure;
use crate::listing::{human_bytes, tell, write_out};
use crate::terminal::one_line;

/// One line for each difference, as diff(1) is silent where there is none; on standard error, how many there are.
pub(super) fn print(fields: &[Field], files: &[Difference]) -> Result<(), Failure> {
    let lines = fields.iter().map(field_line).chain(files.iter().map(file_line));
    write_out(&lines.map(|line| line + "\n").collect::<String>())?;
    tell(format_args!("{}", summary(fields, files)));
    Ok(())
}

fn field_line(Field { name, old, new }: &Field) -> String {
    one_line(&match (old, new) {
        (Some(old), Some(new)) => format!("C {name}: {old} → {new}"),
        (Some(old), None) => format!("D {name}: {old}"),
        (None, new) => format!("A {name}: {}", new.clone().unwrap_or_default()),
    })
}

fn file_line(difference: &Difference) -> String {
    let Difference { path, old, new, aspects } = difference;
    one_line(&match (old, new) {
        (Some(old), Some(new)) => {
            let aspects: Vec<_> = aspects.iter().map(|aspect| aspect_text(*aspect, old, new)).collect();
            format!("C {path}  {}", aspects.join(", "))
        }
        (Some(_), None) => format!("D {path}"),
        (None, _) => format!("A {path}"),
    })
}

fn aspect_text(aspect: Aspect, old: &Entry, new: &Entry) -> String {
    match aspect {
        Aspect::Kind => format!("{} → {}", kind_text(&old.kind), kind_text(&new.kind)),
        Aspect::Content if old.size() == new.size() => format!("content ({})", human_bytes(new.size())),
        Aspect::Content => format!("content ({} → {})", human_bytes(old.size()), human_bytes(new.size())),
        Aspect::Target => format!("target {} → {}", target_text(old), target_text(new)),
        Aspect::Device => format!("{} → {}", kind_text(&old.kind), kind_text(&new.kind)),
        Aspect::Mode => format!("mode {:04o} → {:04o}", old.mode, new.mode),
        Aspect::Owner => format!("owner {}:{} → {}:{}", old.uid, old.gid, new.uid, new.gid),
        Aspect::Xattrs => format!("xattrs {}", differing_xattrs(old, new).join(" ")),
        Aspect::Names => "hard links".to_owned(),
        Aspect::Mtime => "mtime".to_owned(),
    }
}

fn aspect_name(aspect: Aspect) -> &'static str {
    match aspect {
        Aspect::Kind => "kind",
        Aspect::Content => "content",
        Aspect::Target => "target",
        Aspect::Device => "device",
        Aspect::Mode => "mode",
        Aspect::Owner => "owner",
        Aspect::Xattrs => "xattrs",
        Aspect::Names => "hard-links",
        Aspect::Mtime => "mtime",
    }
}

fn kind_text(kind: &Kind) -> String {
    match kind {
        Kind::Directory { .. } => "directory".to_owned(),
        Kind::File { .. } | Kind::HardLink { .. } => "file".to_owned(),
        Kind::Symlink { .. } => "link".to_owned(),
        Kind::CharDevice { major, minor } => format!("character device {major}:{minor}"),
        Kind::BlockDevice { major, minor } => format!("block device {major}:{minor}"),
        Kind::Fifo => "pipe".to_owned(),
        Kind::Whiteout => "whiteout".to_owned(),
    }
}

fn target_text(entry: &Entry) -> String {
    match &entry.kind {
        Kind::Symlink { target } => String::from_utf8_lossy(target).into_owned(),
        _ => String::new(),
    }
}

/// The names of attributes that only one of the two has, or has with another value.
fn differing_xattrs(old: &Entry, new: &Entry) -> Vec<String> {
    let only = |one: &Entry, other: &Entry| -> Vec<String> {
        let differing = one.xattrs.iter().filter(|xattr| !other.xattrs.contains(xattr));
        differing.map(|xattr| String::from_utf8_lossy(&xattr.name).into_owned()).collect()
    };
    let mut names = [only(old, new), only(new, old)].concat();
    names.sort();
    names.dedup();
    names
}

fn summary(fields: &[Field], files: &[Difference]) -> String {
    let count = |is_it: fn(&Difference) -> bool| files.iter().filter(|file| is_it(file)).count();
    let parts = [
        (fields.len(), "in the config"),
        (count(|file| file.old.is_none()), "added"),
        (count(|file| file.new.is_none()), "deleted"),
        (count(|file| file.old.is_some() && file.new.is_some()), "changed"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts.map(|(count, what)| format!("{count} {what}")).collect();
    if parts.is_empty() { "nothing differs".to_owned() } else { parts.join(", ") }
}

/// Everything, for a program.
pub(super) fn document(fields: &[Field], files: &[Difference]) -> Value {
    let field = |field: &Field| json!({ "field": field.name, "old": field.old, "new": field.new });
    json!({
        "config": fields.iter().map(field).collect::<Vec<_>>(),
        "files": files.iter().map(file_document).collect::<Vec<_>>(),
    })
}

fn file_document(difference: &Difference) -> Value {
    let Difference { path, old, new, aspects } = difference;
    json!({
        "path": path.to_string(),
        "differs": aspects.iter().map(|aspect| aspect_name(*aspect)).collect::<Vec<_>>(),
        "old": old.as_ref().map(entry_document),
        "new": new.as_ref().map(entry_document),
    })
}

fn entry_document(entry: &Entry) -> Value {
    // A copy, since a field of a packed struct cannot be borrowed.
    let seconds = entry.mtime.seconds;
    let mut document = json!({
        "kind": kind_text(&entry.kind),
        "mode": format!("{:04o}", entry.mode),
        "uid": entry.uid,
        "gid": entry.gid,
        "mtime": seconds,
    });
    match &entry.kind {
        Kind::File { size, digest, .. } => {
            document["size_bytes"] = (*size).into();
            document["digest"] = digest.to_digest().to_string().into();
        }
        Kind::Symlink { .. } => document["target"] = target_text(entry).into(),
        _ => {}
    }
    document
}
