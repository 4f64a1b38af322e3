//! A shell script cut into simple commands, by their separators alone.

/// A program and its arguments. Quotes around words are removed, those within are kept.
#[derive(Debug)]
pub(super) struct Command {
    /// The program's name, without its directory.
    pub(super) program: String,
    /// What follows it.
    pub(super) words: Vec<String>,
}

impl Command {
    /// Whether one of the words is `word`.
    pub(super) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|given| given == word)
    }

    /// Whether it is this program with this subcommand, which may be several words; options before it do not count. An empty one
    /// means that nothing but options follows.
    pub(super) fn is(&self, program: &str, subcommand: &str) -> bool {
        let mut wanted = subcommand.split(' ').filter(|word| !word.is_empty()).peekable();
        let counts = |word: &&String| !word.starts_with('-') || subcommand.starts_with('-');
        let mut words = self.words.iter().filter(counts);
        if self.program != program {
            return false;
        }
        match wanted.peek() {
            None => words.next().is_none(),
            Some(_) => wanted.all(|word| words.next().is_some_and(|given| given == word)),
        }
    }
}

/// Words that may stand before a program.
const PREFIXES: [&str; 12] =
    ["sudo", "exec", "env", "time", "nice", "command", "then", "do", "else", "if", "while", "!"];

/// The simple commands of a script, in order.
pub(super) fn commands(script: &str) -> Vec<Command> {
    // A backslash at a line's end joins it with the next, in heredocs too.
    let joined = script.replace("\\\n", " ");
    joined.split([';', '&', '|', '\n', '(', ')', '`']).filter_map(command).collect()
}

fn command(text: &str) -> Option<Command> {
    let is_assignment = |word: &str| {
        let (name, _) = word.split_once('=')?;
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        is_name.then_some(())
    };
    let mut words = text
        .split_whitespace()
        .map(|word| word.trim_matches(['"', '\'']))
        .skip_while(|word| PREFIXES.contains(word) || is_assignment(word).is_some());
    let program = words.next()?;
    let name = program.rsplit('/').next().unwrap_or(program);
    Some(Command { program: name.to_owned(), words: words.map(ToOwned::to_owned).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programs(script: &str) -> Vec<String> {
        commands(script).into_iter().map(|command| command.program).collect()
    }

    #[test]
    fn scripts_are_cut_where_commands_end() {
        assert_eq!(
            programs("set -e; A=1 /usr/bin/make x && (cd y; ls | wc) || echo no"),
            ["set", "make", "cd", "ls", "wc", "echo"]
        );
        assert_eq!(
            programs("if ! sudo env X=1 apt-get update; then \\\n  exit 1; fi"),
            ["apt-get", "exit", "fi"]
        );
        assert_eq!(programs(" \n"), Vec::<String>::new());
    }

    #[test]
    fn a_subcommand_follows_its_program() {
        let is = |text: &str, program, subcommand| commands(text)[0].is(program, subcommand);
        assert!(is("npm --silent ci", "npm", "ci"));
        assert!(is("go mod download", "go", "mod download"));
        assert!(is("python -m pip install x", "python", "-m pip install"));
        assert!(is("yarn --frozen-lockfile", "yarn", ""));
        assert!(!is("yarn build", "yarn", ""));
        assert!(!is("npm run ci", "npm", "ci"));
    }
}
