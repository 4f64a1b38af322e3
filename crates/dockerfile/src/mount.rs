//! `RUN --mount=…`: comma-separated fields with typed keys and raw values.
//!
//! What holds no variable is checked here: the keys, the type, the sharing mode, and which keys fit the type. The rest waits
//! for expansion. Keys that BuildKit accepts and ignores for a type (an `id` of a bind mount) are accepted.

use crate::ast::{CacheSharing, DeviceFlag, MountField, MountFlag, MountKey, MountType, UnknownName, Word};
use crate::cost;
use crate::finding::{Code, Finding};
use crate::flags::FlagValue;
use crate::lexis::comma_fields;
use crate::scope::Scope;
use crate::span::{Span, Spanned};
use suggest::nearest;

/// Reads one `--mount`; `None` if none of its fields can be understood.
pub(crate) fn mount(value: &FlagValue<'_>, scope: &mut Scope<'_>) -> Option<Spanned<MountFlag>> {
    let Some(parts) = comma_fields(&value.text) else {
        let finding = Finding::new(
            Code::InvalidMount,
            value.span,
            "`--mount` needs comma-separated `key=value` fields",
        );
        scope.report(finding.with_help("write `--mount=type=cache,target=/path`"));
        return None;
    };
    cost::spend(parts.len());
    let mut fields = Vec::with_capacity(parts.len());
    for (text, raw) in &parts {
        fields.extend(field(text, raw, value, scope));
    }
    if fields.is_empty() {
        return None;
    }
    let mount = MountFlag { fields };
    check_type(&mount, scope);
    Some(Spanned::new(mount, value.span))
}

fn field(text: &str, raw: &str, flag: &FlagValue<'_>, scope: &mut Scope<'_>) -> Option<MountField> {
    // Fields without quotes have exact places for key and value, the others that of the whole field.
    let exact = text == raw;
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    let place = |part: std::ops::Range<usize>| flag.span_of(if exact { &raw[part] } else { raw }, scope);
    let key_span = place(0..name.len());
    let value_span = place(text.len() - value.map_or(0, str::len)..text.len());
    let Ok(key) = name.parse::<MountKey>() else {
        scope.report(unknown_key(name, key_span));
        return None;
    };
    if value.is_none() && !key.may_stand_alone() {
        let finding =
            Finding::new(Code::InvalidMount, key_span, format!("the mount key `{name}` needs a value"));
        scope.report(finding.with_help(format!("write `{name}=VALUE`")));
        return None;
    }
    let value = value.map(|value| match key {
        MountKey::From => no_variable(value, value_span, scope),
        _ => scope.decoded_word(value.to_owned(), value_span),
    });
    Some(MountField { key: Spanned::new(key, key_span), value })
}

fn unknown_key(name: &str, span: Span) -> Finding {
    let finding = Finding::new(Code::UnknownMountKey, span, format!("there is no mount key `{name}`"));
    let names = MountKey::NAMES.map(|(name, _)| name);
    match nearest(name, names) {
        Some(near) => finding.with_help(format!("did you mean `{near}`?")),
        None => finding.with_help(format!("keys are `{}`", names.join("`, `"))),
    }
}

/// A `from`, of a mount or of a `COPY`: never expanded, so that a variable in it is a mistake.
pub(crate) fn no_variable(value: &str, span: Span, scope: &mut Scope<'_>) -> Spanned<Word> {
    let holds_variable = value.find('$').is_some_and(|at| at + 1 < value.len());
    if holds_variable {
        let finding = Finding::new(
            Code::VariableInFrom,
            span,
            format!("`from` is not expanded, so `{value}` names nothing"),
        );
        scope.report(
            finding.with_help("define a stage `FROM … AS name` with the variable, and name that stage here"),
        );
    }
    Spanned::new(Word::new(value), span)
}

/// Checks the type, the sharing mode, and whether the keys fit, as far as no variable hides it.
fn check_type(mount: &MountFlag, scope: &mut Scope<'_>) {
    if let Some(sharing) = constant(mount, MountKey::Sharing)
        && sharing.as_str().parse::<CacheSharing>().is_err()
    {
        let names = CacheSharing::ALL.map(CacheSharing::as_str);
        scope.report(no_such(Code::InvalidFlagValue, "sharing mode", sharing, &names));
    }
    let kind = match mount.value(MountKey::Type) {
        None => MountType::Bind,
        Some(word) if word.as_str().contains('$') => return,
        Some(word) => match word.as_str().parse() {
            Ok(kind) => kind,
            Err(UnknownName) => {
                let names = MountType::ALL.map(MountType::as_str);
                return scope.report(no_such(Code::UnknownMountType, "mount type", word, &names));
            }
        },
    };
    for field in mount.fields.iter().filter(|field| !kind.allows(field.key.node)) {
        let message = format!("a mount of type `{kind}` has no `{}`", field.key.node);
        scope.report(Finding::new(Code::UnknownMountKey, field.key.span, message));
    }
}

/// The value of `key`, unless it holds a variable.
fn constant(mount: &MountFlag, key: MountKey) -> Option<&Spanned<Word>> {
    mount.value(key).filter(|word| !word.as_str().contains('$'))
}

fn no_such(code: Code, what: &str, word: &Spanned<Word>, names: &[&str]) -> Finding {
    let finding = Finding::new(code, word.span, format!("there is no {what} `{}`", word.as_str()));
    match nearest(word.as_str(), names.iter().copied()) {
        Some(near) => finding.with_help(format!("did you mean `{near}`?")),
        None => finding.with_help(format!("it is one of `{}`", names.join("`, `"))),
    }
}

/// Reads one `--device`: a name, perhaps behind `name=`, and perhaps `required`.
pub(crate) fn device(value: &FlagValue<'_>, scope: &mut Scope<'_>) -> Option<Spanned<DeviceFlag>> {
    let mut device = DeviceFlag { name: String::new(), required: None };
    for (field, _) in comma_fields(&value.text).unwrap_or_default() {
        match field.split_once('=') {
            None if field.eq_ignore_ascii_case("required") => device.required = Some(true),
            Some((key, flag)) if key.eq_ignore_ascii_case("required") => device.required = flag.parse().ok(),
            Some((key, name)) if key.eq_ignore_ascii_case("name") => device.name = name.to_owned(),
            _ if device.name.is_empty() => device.name = field,
            _ => device.name.clear(),
        }
    }
    if device.name.is_empty() {
        let finding = Finding::new(Code::InvalidFlagValue, value.span, "`--device` needs one device name");
        scope.report(finding.with_help("write `--device=vendor.com/class=name` or `--device=NAME,required`"));
        return None;
    }
    Some(Spanned::new(device, value.span))
}
