//! COPY and ADD: what of their semantics the text alone decides.
//!
//! | rule (Dockerfile reference and BuildKit) | here | when the step runs |
//! | --- | --- | --- |
//! | sources are cleaned as if rooted: `../x`, `/x` and `x/` are `x` | ✓ | |
//! | a relative destination is below WORKDIR | ✓ | |
//! | a destination that ends in `/` or `/.` is a directory | ✓ | |
//! | several sources need a directory | in an empty filesystem, or with `--link`, there is none | ✓ |
//! | `--chown` and `--chmod` are well formed | ✓ | |
//! | `--chown` names somebody the destination knows | with `--link`, nobody is known | ✓ |
//! | a plain source exists, a pattern may match nothing | | ✓ |
//! | ADD fetches URLs and git repositories, COPY does not | ✓ | |
//! | ADD unpacks archives | | ✓ |

use dockerfile::{CopySource, Expansion, Heredoc, Span, Spanned, Word};
use oci::Digest;

use crate::finding::{ErrorKind, Fallible, Finding, WarningKind};
use crate::graph::Origin;
use crate::instruction::{Item, StageLowering};
use crate::lower::Purpose;
use crate::{
    Archives, ContextName, Copy, Destination, DestinationForm, Fetched, GitDir, ImagePath, InlineFile,
    Linkage, Mode, Op, Owner, Parents, Remote, RemoteContent, RemoteRequest, Source, SourcePath,
};

/// What COPY and ADD have in common.
struct Transfer<'f> {
    keyword: Keyword,
    chown: Option<&'f Spanned<Word>>,
    chmod: Option<&'f Spanned<Word>>,
    link: Option<Span>,
    parents: Parents,
    exclude: &'f [Spanned<Word>],
    archives: Archives,
    /// Of fetched sources.
    fetched_archives: Archives,
    checksum: Option<&'f Spanned<Word>>,
    git_dir: GitDir,
    from: Source,
    sources: &'f [CopySource],
    destination: &'f Spanned<Word>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Keyword {
    Add,
    Copy,
}

/// A flag's text after expansion with what it means; the line of history shows the text.
struct Flag<T> {
    text: String,
    value: T,
}

impl StageLowering<'_, '_> {
    pub(crate) fn copy(&mut self, copy: &dockerfile::Copy, item: &Item<'_>) -> Fallible<()> {
        let from = match &copy.from {
            Some(name) => self.shared.source(name, self.index)?,
            None => Source::Context(ContextName::Main),
        };
        let keeps_parents = copy.parents.as_ref().is_some_and(|parents| parents.node);
        self.transfer(
            &Transfer {
                keyword: Keyword::Copy,
                chown: copy.chown.as_ref(),
                chmod: copy.chmod.as_ref(),
                link: switched_on(copy.link.as_ref()),
                parents: if keeps_parents { Parents::Kept } else { Parents::Dropped },
                exclude: &copy.exclude,
                archives: Archives::Copied,
                fetched_archives: Archives::Copied,
                checksum: None,
                git_dir: GitDir::Dropped,
                from,
                sources: &copy.sources,
                destination: &copy.destination,
            },
            item,
        )
    }

    pub(crate) fn add(&mut self, add: &dockerfile::Add, item: &Item<'_>) -> Fallible<()> {
        let archives = |unpack: bool| if unpack { Archives::Unpacked } else { Archives::Copied };
        let unpack = add.unpack.as_ref().map(|unpack| unpack.node);
        let transfer = Transfer {
            keyword: Keyword::Add,
            chown: add.chown.as_ref(),
            chmod: add.chmod.as_ref(),
            link: switched_on(add.link.as_ref()),
            parents: Parents::Dropped,
            exclude: &add.exclude,
            archives: archives(unpack.unwrap_or(true)),
            fetched_archives: archives(unpack.unwrap_or(false)),
            checksum: add.checksum.as_ref(),
            git_dir: match &add.keep_git_dir {
                Some(keep) if keep.node => GitDir::Kept,
                _ => GitDir::Dropped,
            },
            from: Source::Context(ContextName::Main),
            sources: &add.sources,
            destination: &add.destination,
        };
        self.transfer(&transfer, item)
    }

    fn transfer(&mut self, transfer: &Transfer<'_>, item: &Item<'_>) -> Fallible<()> {
        let owner = self.owner(transfer, item)?;
        let mode = self.mode(transfer, item)?;
        let linkage = self.linkage(transfer, owner.as_ref(), mode.is_some())?;
        let (paths, inline) = self.sources(transfer, item)?;
        check_checksum(transfer, &paths)?;
        let written = self.expand(transfer.destination, item)?;
        let destination = self.destination(&written, transfer, linkage)?;
        let line = history_line(transfer, owner.as_ref(), mode.as_ref(), (&paths, &inline), &written);
        let copy = Copy {
            parent: self.state.step,
            linkage,
            from: transfer.from.clone(),
            paths,
            inline,
            destination,
            owner: owner.map(|flag| flag.value),
            mode: mode.map(|flag| flag.value),
            exclude: transfer.exclude.iter().map(|pattern| pattern.as_str().to_owned()).collect(),
            parents: transfer.parents,
            archives: transfer.archives,
            time: self.shared.epoch,
        };
        let origin = self.origin(item, item.title.clone());
        let step = self.shared.graph.push(Op::Copy(Box::new(copy)), origin);
        self.state.advance(step, line);
        Ok(())
    }

    fn owner(&mut self, transfer: &Transfer<'_>, item: &Item<'_>) -> Fallible<Option<Flag<Owner>>> {
        let Some(word) = transfer.chown else { return Ok(None) };
        let text = self.expand(word, item)?;
        Ok((!text.is_empty()).then(|| Flag { value: Owner::parse(&text), text }))
    }

    fn mode(&mut self, transfer: &Transfer<'_>, item: &Item<'_>) -> Fallible<Option<Flag<Mode>>> {
        let Some(word) = transfer.chmod else { return Ok(None) };
        let text = self.expand(word, item)?;
        if text.is_empty() {
            return Ok(None);
        }
        let value = Mode::parse(&text).map_err(|error| {
            Finding::new(ErrorKind::Mode(error), word.span)
                .help("write an octal number such as `755`, or clauses such as `u=rwX,go=rX`")
        })?;
        Ok(Some(Flag { text, value }))
    }

    fn linkage(
        &mut self,
        transfer: &Transfer<'_>,
        owner: Option<&Flag<Owner>>,
        has_mode: bool,
    ) -> Fallible<Linkage> {
        let Some(span) = transfer.link else { return Ok(Linkage::OnParent) };
        if has_mode {
            // As in the reference implementation, whose result ours has to equal.
            let warning = Finding::new(WarningKind::LinkIgnored, span);
            self.shared.warnings.push(warning.help("remove one of the two flags"));
            return Ok(Linkage::OnParent);
        }
        if let (Some(flag), Some(word)) = (owner, transfer.chown)
            && flag.value.names().next().is_some()
        {
            let error = Finding::new(ErrorKind::LinkedOwnerName(flag.text.clone()), word.span);
            return Err(Box::new(error.help("write the owner as numbers, or remove `--link`")));
        }
        Ok(Linkage::Independent)
    }

    fn sources(
        &mut self,
        transfer: &Transfer<'_>,
        item: &Item<'_>,
    ) -> Fallible<(Vec<SourcePath>, Vec<InlineFile>)> {
        let mut paths = Vec::new();
        let mut inline = Vec::new();
        let mut failed = None;
        for source in transfer.sources {
            match source {
                CopySource::Path(word) => match self.path(word, transfer, item) {
                    Ok(path) => paths.push(path),
                    // All that cannot be had is told at once.
                    Err(error) => {
                        let goes_on = matches!(error.kind, ErrorKind::Remote { .. });
                        let before = failed.replace(error).map(|before| item.place(*before));
                        self.shared.errors.extend(before);
                        if !goes_on {
                            break;
                        }
                    }
                },
                CopySource::Heredoc(heredoc) => inline.push(self.inline_file(heredoc)?),
            }
        }
        failed.map_or(Ok((paths, inline)), Err)
    }

    fn path(
        &mut self,
        word: &Spanned<Word>,
        transfer: &Transfer<'_>,
        item: &Item<'_>,
    ) -> Fallible<SourcePath> {
        let written = self.expand(word, item)?;
        match RemoteKind::of(&written) {
            Some(kind) => self.fetched(kind, written, transfer, word.span, item),
            None => Ok(source_path(written, transfer.parents)),
        }
    }

    /// A source that lies elsewhere: a step of its own, and the file in it.
    fn fetched(
        &mut self,
        kind: RemoteKind,
        written: String,
        transfer: &Transfer<'_>,
        span: Span,
        item: &Item<'_>,
    ) -> Fallible<SourcePath> {
        if transfer.keyword == Keyword::Copy {
            let error = Finding::new(ErrorKind::CopyOfUrl(written), span);
            return Err(Box::new(error.help("fetch it with ADD, or in a RUN")));
        }
        let checksum = self.checksum(transfer, item)?;
        let url = written.clone();
        let request = match kind {
            RemoteKind::File => RemoteRequest::File { url, checksum: file_checksum(checksum)? },
            RemoteKind::Repository => RemoteRequest::Repository {
                url,
                checksum: checksum.map(|checksum| checksum.node),
                git_dir: transfer.git_dir,
            },
        };
        // What is wrong with the content is wrong with what it should be.
        let blamed = transfer.checksum.map_or(span, |checksum| checksum.span);
        let content = match self.shared.purpose {
            Purpose::Build => {
                self.shared.images.fetch(&request, span).map_err(|error| match &error.kind {
                    ErrorKind::Remote { error: why } if why.cause == crate::RemoteErrorCause::Checksum => {
                        Box::new(Finding { span: blamed, ..*error })
                    }
                    _ => error,
                })?
            }
            // Nothing is fetched to be looked at, so any content will do.
            Purpose::Check => RemoteContent { digest: Digest::of([]), file_name: None },
        };
        let pattern = content.file_name.as_deref().map(literal).unwrap_or_default();
        let origin = Origin {
            platform: self.state.platform.clone(),
            stage: None,
            span: blamed,
            title: format!("ADD {}", request.shown()),
        };
        let step = self.shared.graph.remote(Remote { request, content }, origin);
        let fetched = Some(Fetched { step, archives: transfer.fetched_archives });
        Ok(SourcePath { written, pivot: String::new(), pattern, fetched })
    }

    /// `--checksum` of the only source.
    fn checksum(&mut self, transfer: &Transfer<'_>, item: &Item<'_>) -> Fallible<Option<Spanned<String>>> {
        let Some(word) = transfer.checksum else { return Ok(None) };
        if transfer.sources.len() != 1 {
            return Err(Box::new(Finding::new(ErrorKind::ChecksumOfLocalFile, word.span)));
        }
        Ok(Some(Spanned { node: self.expand(word, item)?, span: word.span }))
    }

    fn inline_file(&mut self, heredoc: &Heredoc) -> Fallible<InlineFile> {
        let body = heredoc.body();
        let content = match heredoc.expansion {
            Expansion::Variables => self.expand_text(&body, heredoc.span)?,
            Expansion::Verbatim => body,
        };
        Ok(InlineFile { name: heredoc.name.clone(), content })
    }

    fn destination(&self, written: &str, transfer: &Transfer<'_>, linkage: Linkage) -> Fallible<Destination> {
        let path = self.state.cwd().join(written);
        let says_so =
            written.is_empty() || written == "." || written.ends_with('/') || written.ends_with("/.");
        let is_directory = says_so || path.is_root() || transfer.parents == Parents::Kept;
        let form = match (is_directory, transfer.sources.len() > 1) {
            (true, _) => DestinationForm::Directory,
            (false, true) => DestinationForm::ExistingDirectory,
            (false, false) => DestinationForm::Open,
        };
        let nothing_exists = linkage == Linkage::Independent || self.shared.graph.is_scratch(self.state.step);
        if form == DestinationForm::ExistingDirectory && nothing_exists {
            let sources = transfer.sources.len();
            let kind = ErrorKind::ManySourcesOneFile { sources, destination: written.to_owned() };
            let error = Finding::new(kind, transfer.destination.span);
            return Err(Box::new(error.help(format!("end it with a slash: `{written}/`"))));
        }
        Ok(Destination { path, form })
    }
}

/// The digest that a file must have.
pub(crate) fn file_checksum(checksum: Option<Spanned<String>>) -> Fallible<Option<Digest>> {
    let Some(Spanned { node: text, span }) = checksum else { return Ok(None) };
    match text.parse::<Digest>() {
        Ok(digest @ Digest::Sha256(_)) => Ok(Some(digest)),
        _ => {
            let error = Finding::new(ErrorKind::Checksum(text), span);
            Err(Box::new(error.help("write it as `sha256:` and 64 hexadecimal digits")))
        }
    }
}

/// `--checksum` is for a source that is fetched.
fn check_checksum(transfer: &Transfer<'_>, paths: &[SourcePath]) -> Fallible<()> {
    let Some(checksum) = transfer.checksum else { return Ok(()) };
    if paths.iter().any(|path| path.fetched.is_some()) {
        return Ok(());
    }
    Err(Box::new(Finding::new(ErrorKind::ChecksumOfLocalFile, checksum.span)))
}

fn switched_on(flag: Option<&Spanned<bool>>) -> Option<Span> {
    flag.filter(|flag| flag.node).map(|flag| flag.span)
}

/// With `--parents`, what stands before `/./` is where the kept directories begin.
fn source_path(written: String, parents: Parents) -> SourcePath {
    let (pivot, pattern) = match (parents, written.split_once("/./")) {
        (Parents::Kept, Some((pivot, pattern))) => (pivot, pattern),
        _ => ("", written.as_str()),
    };
    let clean = |text: &str| ImagePath::rooted(text).relative().to_owned();
    SourcePath { pivot: clean(pivot), pattern: clean(pattern), written, fetched: None }
}

/// A pattern that matches a name and no other.
fn literal(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for c in name.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// `COPY --chown=1:2 a b /c # buildkit`: some flags, values expanded, the destination as written.
fn history_line(
    transfer: &Transfer<'_>,
    owner: Option<&Flag<Owner>>,
    mode: Option<&Flag<Mode>>,
    (paths, inline): (&[SourcePath], &[InlineFile]),
    destination: &str,
) -> String {
    let keyword = match transfer.keyword {
        Keyword::Add => "ADD",
        Keyword::Copy => "COPY",
    };
    let mut words = vec![keyword.to_owned()];
    if transfer.parents == Parents::Kept {
        words.push("--parents".to_owned());
    }
    words.extend(owner.map(|flag| format!("--chown={}", flag.text)));
    words.extend(mode.map(|flag| format!("--chmod={}", flag.text)));
    words.extend(paths.iter().map(|path| path.written.clone()));
    words.extend(inline.iter().map(|file| format!("<<{}", file.name)));
    words.push(format!("{destination} # buildkit"));
    words.join(" ")
}

/// What lies elsewhere, as the source of an ADD or as a context.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RemoteKind {
    /// A file over HTTP.
    File,
    /// A git repository.
    Repository,
}

impl RemoteKind {
    /// Whether a source lies elsewhere, told from its text.
    #[must_use]
    pub fn of(source: &str) -> Option<Self> {
        let is_http = source.starts_with("http://") || source.starts_with("https://");
        let path = source.split(['#', '?']).next().unwrap_or_default();
        let is_git_url = ["git://", "ssh://"].iter().any(|scheme| source.starts_with(scheme));
        if is_git_url || (is_http && path.ends_with(".git")) || is_scp_like(source) {
            Some(Self::Repository)
        } else if is_http {
            Some(Self::File)
        } else {
            None
        }
    }
}

/// `user@host:path`.
fn is_scp_like(source: &str) -> bool {
    let Some((user, rest)) = source.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let is_word = |text: &str, also: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
    };
    is_word(user, "-_") && is_word(host, "-._")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_sources_are_told_from_paths() {
        for (source, expected) in [
            ("https://example.com/a.tar", Some(RemoteKind::File)),
            ("https://example.com/r.git", Some(RemoteKind::Repository)),
            ("https://example.com/r.git#v1:dir", Some(RemoteKind::Repository)),
            ("https://example.com/r.git?ref=main", Some(RemoteKind::Repository)),
            ("git@github.com:o/r.git", Some(RemoteKind::Repository)),
            ("ssh://git@host/r", Some(RemoteKind::Repository)),
            ("git://host/r", Some(RemoteKind::Repository)),
            ("https://example.com/r", Some(RemoteKind::File)),
            ("https://example.com/r.git/x", Some(RemoteKind::File)),
            ("r.git", None),
            ("./r.git", None),
            ("file:///r.git", None),
            ("ext::sh", None),
            ("ftp://example.com/r.git", None),
            ("github.com/o/r", None),
            ("a@b", None),
            ("dir/a@b:c", None),
            ("httpd.conf", None),
            ("http:/x", None),
        ] {
            assert_eq!(RemoteKind::of(source), expected, "{source}");
        }
    }

    #[test]
    fn sources_are_cleaned_as_if_rooted() {
        let dropped = |text: &str| source_path(text.to_owned(), Parents::Dropped).pattern;
        assert_eq!(dropped("../../a/./b//c/"), "a/b/c");
        assert_eq!(dropped("/"), "");
        assert_eq!(dropped("."), "");
        assert_eq!(dropped("*.txt"), "*.txt");
    }

    #[test]
    fn parents_begin_behind_the_pivot() {
        let kept = |text: &str| {
            let path = source_path(text.to_owned(), Parents::Kept);
            (path.pivot, path.pattern)
        };
        assert_eq!(kept("a/b/./c/d"), ("a/b".to_owned(), "c/d".to_owned()));
        assert_eq!(kept("./x/./**/y"), ("x".to_owned(), "**/y".to_owned()));
        assert_eq!(kept("a/b"), (String::new(), "a/b".to_owned()));
    }
}
