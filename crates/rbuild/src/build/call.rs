//! `rbuild build --call`: something other than building.

use std::path::Path;

use dockerfile::Audience;

use crate::build::agents::Agents;
use crate::build::errors;
use crate::build::fetch::Fetcher;
use crate::build::input::{Input, Place, STDIN};
use crate::build::lock::Pins;
use crate::build::request::Asked;
use crate::cli::{BuildArgs, Format, Global, Method};
use crate::environment::Environment;
use crate::failure::{Exit, Failure};
use crate::lint::{self, Judge};
use crate::session::Session;

/// Does what `method` asks for and builds nothing; gives the exit code.
pub(crate) fn call(
    method: Method,
    format: Format,
    args: &BuildArgs,
    global: &Global,
    environment: &Environment,
) -> Result<u8, Failure> {
    let asked = Asked::read(args, environment)?;
    let reads_stdin = args.steps.file.as_deref() == Some(Path::new(STDIN));
    if !reads_stdin && !Place::of(&args.context)?.is_elsewhere() {
        // Nothing is fetched, so no store is needed.
        let input = Input::of_machine(args.names())?;
        return answer(method, format, &input, &asked, global, environment);
    }
    let session = Session::open(global)?;
    let (agents, pins) = (Agents::default(), Pins::of(&args.steps, &args.context)?);
    let fetcher = Fetcher::new(&session, &asked.secrets, asked.access, environment, &agents, &pins);
    let input = Input::read(args.names(), &asked.request.build_args, &session, &fetcher, environment)?;
    let code = answer(method, format, &input, &asked, global, environment)?;
    session.close()?;
    Ok(code)
}

fn answer(
    method: Method,
    format: Format,
    input: &Input,
    asked: &Asked,
    global: &Global,
    environment: &Environment,
) -> Result<u8, Failure> {
    let dockerfile = &input.dockerfile;
    let judge = Judge::new(dockerfile, &asked.request, Audience::Building)?;
    if method == Method::Check {
        let findings =
            lint::images::with_known(global, |images| lint::examine(input, &asked.request, &judge, images))?;
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
