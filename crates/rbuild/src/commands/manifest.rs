//! `rbuild manifest`: images of several platforms under one name.

use image::manifest_list::{AddError, AnnotateError, Annotation, ManifestList, PushListError};
use oci::Reference;
use registry::Client;

use crate::cli::{
    Global, ManifestAnnotateArgs, ManifestCommand, ManifestCreateArgs, ManifestInspectArgs, ManifestPushArgs,
    ManifestRmArgs, RegistryArgs,
};
use crate::commands::copy::{of_copy, options, tell, view};
use crate::commands::names;
use crate::commands::registry::{ClientError, Connection, Way};
use crate::diagnostic::Diagnostic;
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::listing::{write_bytes, write_line};
use crate::session::{Session, store_failure, unless_cancelled};

/// One of the commands about lists.
pub(crate) fn run(
    command: &ManifestCommand,
    global: &Global,
    environment: &Environment,
) -> Result<(), Failure> {
    match command {
        ManifestCommand::Inspect(args) => inspect(args, global, environment),
        ManifestCommand::Create(args) => create(args, global, environment),
        ManifestCommand::Annotate(args) => annotate(args, global),
        ManifestCommand::Push(args) => push(args, global, environment),
        ManifestCommand::Rm(args) => remove(args, global),
    }
}

/// A list that is not pushed yet.
struct Draft<'d> {
    name: Reference,
    session: &'d Session,
}

impl<'d> Draft<'d> {
    fn new(name: &str, session: &'d Session) -> Result<Self, Failure> {
        Ok(Self { name: names::new_name(name)?, session })
    }

    fn read(&self) -> Result<Option<ManifestList>, Failure> {
        let text = self.session.lease.store().manifest_list(&self.name.to_string());
        let Some(text) = text.map_err(|error| store_failure(&error))? else { return Ok(None) };
        let list = serde_json::from_slice(&text).map_err(|error| {
            let title = format!("the list `{}` is damaged", self.name.familiar());
            let help =
                format!("remove it with `rbuild manifest rm {}`, and create it anew", self.name.familiar());
            Failure::new(
                Exit::Machine,
                Diagnostic::error("manifest", title).note(error.to_string()).help(help),
            )
        })?;
        Ok(Some(list))
    }

    fn must_be_there(&self) -> Result<ManifestList, Failure> {
        self.read()?.ok_or_else(|| {
            let title = format!("there is no list `{}`", self.name.familiar());
            Failure::usage(title, "make it with `rbuild manifest create LIST IMAGE…`")
        })
    }

    fn write(&self, list: &ManifestList) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(list)
            .map_err(|error| Failure::new(Exit::Machine, Diagnostic::from_error("json", &error)))?;
        let written = self.session.lease.put_manifest_list(&self.name.to_string(), &text);
        written.map_err(|error| store_failure(&error))
    }

    fn remove(&self) -> Result<bool, Failure> {
        let removed = self.session.lease.store().remove_manifest_list(&self.name.to_string());
        removed.map_err(|error| store_failure(&error))
    }
}

fn create(args: &ManifestCreateArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let images = args.images.iter().map(|text| names::name(text)).collect::<Result<Vec<_>, _>>()?;
    let session = Session::open(global)?;
    let draft = Draft::new(&args.list, &session)?;
    let mut list = match draft.read()? {
        Some(_) if !args.amend => {
            let title = format!("there is a list `{}` already", draft.name.familiar());
            return Err(Failure::usage(
                title,
                "add to it with `--amend`, or remove it with `rbuild manifest rm`",
            ));
        }
        found => found.unwrap_or_default(),
    };
    online(&session, &args.registry, environment, |client| {
        images.iter().try_for_each(|image| list.add(client, image)).map_err(|error| of_add(&error))
    })?;
    draft.write(&list)?;
    write_line(format_args!("Created manifest list {}", draft.name))?;
    session.close()
}

fn of_add(error: &AddError) -> Failure {
    Failure::new(Exit::Network, Diagnostic::from_error("manifest", error))
}

fn annotate(args: &ManifestAnnotateArgs, global: &Global) -> Result<(), Failure> {
    let image = names::name(&args.image)?;
    let session = Session::open(global)?;
    let draft = Draft::new(&args.list, &session)?;
    let mut list = draft.must_be_there()?;
    let annotation = Annotation {
        os: args.os.clone(),
        architecture: args.arch.clone(),
        variant: args.variant.clone(),
        os_version: args.os_version.clone(),
        os_features: args.os_features.clone(),
        annotations: args.annotations.clone(),
    };
    list.annotate(&image, &annotation).map_err(|error| {
        let help = match error {
            AnnotateError::NotThere(_) => {
                "`rbuild manifest inspect` shows what is; name it as it was added, or with its digest"
            }
            AnnotateError::Several { .. } => "name one of them with its digest",
        };
        Failure::usage(error.to_string(), help)
    })?;
    draft.write(&list)?;
    session.close()
}

fn push(args: &ManifestPushArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let session = Session::open(global)?;
    let draft = Draft::new(&args.list, &session)?;
    let list = draft.must_be_there()?;
    let to = match &args.destination {
        Some(name) => names::new_name(name)?,
        None => draft.name.clone(),
    };
    let shown = view(args.quiet, environment).begin(Way::Push, &to);
    let pushed = online(&session, &args.registry, environment, |client| {
        let pushed = list.push(client, &to, options(None, &|progress| tell(&shown, progress)));
        pushed.map_err(|error| of_push(&error))
    });
    shown.end(pushed.as_ref().ok().map(|pushed| &pushed.digest));
    let pushed = pushed?;
    if args.purge {
        draft.remove()?;
    }
    write_line(to.at_digest(pushed.digest).familiar())?;
    session.close()
}

fn inspect(args: &ManifestInspectArgs, global: &Global, environment: &Environment) -> Result<(), Failure> {
    let reference = names::name(&args.reference)?;
    let session = Session::open(global)?;
    let draft = Draft { name: reference.clone(), session: &session };
    let bytes = match draft.read()? {
        Some(list) => list.to_json(),
        None => fetch(&reference, &args.registry, &session, environment)?,
    };
    match args.raw {
        true => write_bytes(&bytes)?,
        false => write_line(pretty(&bytes))?,
    }
    session.close()
}

fn fetch(
    reference: &Reference,
    args: &RegistryArgs,
    session: &Session,
    environment: &Environment,
) -> Result<Vec<u8>, Failure> {
    online(session, args, environment, |client| {
        let fetched = client.manifest(reference);
        let fetched = fetched
            .map_err(|error| Failure::new(Exit::Network, Diagnostic::from_error("manifest", &error)))?;
        Ok(fetched.bytes)
    })
}

/// Does something with a client, until it is done or cancelled.
fn online<T>(
    session: &Session,
    args: &RegistryArgs,
    environment: &Environment,
    work: impl FnOnce(&Client) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let connection = Connection::new(&session.cancel, environment, args);
    let (client, _hook) = connection.client().map_err(ClientError::into_failure)?;
    work(client).map_err(|failure| unless_cancelled(&session.cancel, failure))
}

fn of_push(error: &PushListError) -> Failure {
    match error {
        PushListError::Copy(error) => of_copy(error),
        error => Failure::new(Exit::Usage, Diagnostic::from_error("manifest", error)),
    }
}

/// With its keys in their order.
fn pretty(bytes: &[u8]) -> String {
    let document = serde_json::from_slice::<serde_json::Value>(bytes);
    let text = document.and_then(|document| serde_json::to_string_pretty(&document));
    text.unwrap_or_else(|_| String::from_utf8_lossy(bytes).into_owned())
}

fn remove(args: &ManifestRmArgs, global: &Global) -> Result<(), Failure> {
    let session = Session::open(global)?;
    let drafts = args.lists.iter().map(|name| Draft::new(name, &session)).collect::<Result<Vec<_>, _>>()?;
    for draft in &drafts {
        draft.must_be_there()?;
    }
    for draft in &drafts {
        draft.remove()?;
        write_line(format_args!("Removed manifest list {}", draft.name))?;
    }
    session.close()
}
