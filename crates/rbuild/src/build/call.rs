//! `rbuild build --call`: something other than building.

use dockerfile::Audience;

use crate::build::request::Asked;
use crate::build::{Dockerfile, errors};
use crate::cli::{BuildArgs, Format, Global, Method};
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::lint::{self, Judge};

/// Does what `method` asks for and builds nothing; gives the exit code.
pub(crate) fn call(
    method: Method,
    format: Format,
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
) -> Result<u8, Failure> {
    let asked = Asked::read(args, environment)?;
    let dockerfile = Dockerfile::read(args.file.as_deref(), &args.context)?;
    let judge = Judge::new(&dockerfile, &asked.request, Audience::Building)?;
    if method == Method::Check {
        let findings = lint::images::with_known(global, |images| {
            lint::examine(&dockerfile, &asked.request, &args.context, &judge, images)
        })?;
        lint::show::print(&findings, format, environment)?;
        // As with BuildKit: whoever checks wants none.
        return Ok(if findings.list.is_empty() { 0 } else { Exit::Build as u8 });
    }
    dockerfile.must_be_whole(&judge)?;
    let (file, source) = (&dockerfile.parsed.file, &dockerfile.source);
    if method == Method::Targets {
        lint::offers::print_targets(&plan::targets(file), source, format)?;
    } else {
        let outline =
            plan::outline(file, &asked.request).map_err(|error| errors::of_plan(&[*error], source))?;
        lint::offers::print_outline(&outline, source, format)?;
    }
    Ok(0)
}
