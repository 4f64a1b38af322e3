//! `rbuild lint`: what could be better about a Dockerfile, our own rules included.

use dockerfile::Audience;
use oci::Platform;
use plan::Request;

use crate::build::Input;
use crate::cli::{Global, LintArgs};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::lint::{self, Judge};

/// Lints; gives the exit code.
pub(crate) fn lint(args: &LintArgs, global: &Global, environment: &Environment) -> Result<u8, Failure> {
    let input = Input::of_machine(args.names())?;
    let request = request();
    let mut judge = Judge::new(&input.dockerfile, &request, Audience::Linting)?;
    for chosen in &args.rules {
        judge.choose(chosen.rule, chosen.level);
    }
    let findings =
        lint::images::with_known(global, |images| lint::examine(&input, &request, &judge, images))?;
    lint::show::print(&findings, args.format.format, environment)
}

/// Nothing special is asked for.
fn request() -> Request {
    Request::plain(Platform::host())
}
