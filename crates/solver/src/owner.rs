//! Who owns what: names looked up in a filesystem that is not mounted.

use std::io::Read as _;

use layer::merged::{Follow, Merged};
use oci::LayerId;
use plan::{Owner, Principal, UserSpec};
use sandbox::{NameOrId, User};
use sys::RootfsPath;

use crate::{Services, StepError};

/// A numeric owner.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Ids {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Largest `/etc/passwd` or `/etc/group` that is read. They are files of an image, so they can be anything.
const MAX_ACCOUNTS_BYTES: u64 = 16 << 20;

/// Resolves `--chown`: a number alone is user and group, a name alone brings its primary group (Dockerfile reference, "COPY --chown").
pub(crate) fn of_owner(
    owner: &Owner,
    layers: &[LayerId],
    merged: &Merged,
    services: &Services<'_>,
) -> Result<Ids, StepError> {
    let id = |principal: &Principal| match principal {
        Principal::Id(id) => NameOrId::Id(*id),
        Principal::Name(name) => NameOrId::Name(name.clone()),
    };
    let mut group = owner.group.as_ref().map(id);
    if let (Some(Principal::Id(user)), None) = (&owner.user, &owner.group) {
        group = Some(NameOrId::Id(*user));
    }
    let user = User { user: Some(owner.user.as_ref().map_or(NameOrId::Id(0), id)), group };
    resolve(&user, owner.names().next().is_some(), layers, merged, services)
}

/// Resolves `USER`, for a directory that WORKDIR makes.
pub(crate) fn of_user(
    user: Option<&UserSpec>,
    layers: &[LayerId],
    merged: &Merged,
    services: &Services<'_>,
) -> Result<Ids, StepError> {
    let Some(user) = user else { return Ok(Ids::default()) };
    let mut user: User = user.as_str().parse()?;
    // As with `--chown`, and unlike for a process: a number alone is the group, too.
    if let (Some(NameOrId::Id(id)), None) = (&user.user, &user.group) {
        user.group = Some(NameOrId::Id(*id));
    }
    resolve(&user, true, layers, merged, services)
}

fn resolve(
    user: &User,
    needs_files: bool,
    layers: &[LayerId],
    merged: &Merged,
    services: &Services<'_>,
) -> Result<Ids, StepError> {
    let (passwd, group) = if needs_files {
        (read("etc/passwd", layers, merged, services)?, read("etc/group", layers, merged, services)?)
    } else {
        (Vec::new(), Vec::new())
    };
    let credentials = user.resolve(&passwd, &group)?;
    Ok(Ids { uid: credentials.uid, gid: credentials.gid })
}

/// A file of a filesystem; empty if it is not there.
fn read(
    path: &str,
    layers: &[LayerId],
    merged: &Merged,
    services: &Services<'_>,
) -> Result<Vec<u8>, StepError> {
    let resolved = merged.resolve(&RootfsPath::parse(path)?, Follow::Last)?;
    let Some(found) = resolved.found else { return Ok(Vec::new()) };
    let mut bytes = Vec::new();
    let file = services.layers.open_file(layers, merged, found)?;
    file.take(MAX_ACCOUNTS_BYTES).read_to_end(&mut bytes).map_err(StepError::Accounts)?;
    Ok(bytes)
}
