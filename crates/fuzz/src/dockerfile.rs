//! A Dockerfile: to a tree, to text again, to findings, and to a plan as far as one can be made without any image.

use ::dockerfile::Source;
use dockerfile::{improvements, parse};
use oci::{Config, Digest, ImageId, Platform, Reference};
use plan::{
    BaseImage, BuildArg, ImageError, ImageErrorCause, Images, RemoteContent, RemoteError, RemoteRequest,
    Request,
};

/// Reads a Dockerfile and plans the build of it: once as `lint` does, which knows no image, and once with an image behind every name.
///
/// # Panics
/// If what is found lies outside the text.
pub fn dockerfile(bytes: &[u8]) {
    let source = Source::new("Dockerfile", bytes);
    let parsed = parse(&source);
    for finding in parsed.findings.iter().chain(&improvements(&parsed.file)) {
        assert!(source.text().get(finding.span.range()).is_some(), "{finding:?} lies outside the file");
    }
    parse(&Source::new("printed", parsed.file.to_string().as_bytes()));
    let request = request();
    let told = plan::check(&parsed.file, &request, &mut NoImages).is_ok();
    assert_eq!(plan::outline(&parsed.file, &request).is_ok(), told, "only one of them finds the target");
    assert_eq!(plan::targets(&parsed.file).len(), parsed.file.stages.len());
    if let Ok(plan) = plan::lower(&parsed.file, &request, &mut AnyImage) {
        assert!(plan.steps.iter().all(|step| !step.title.contains('\n')), "a title has lines");
    }
}

pub(crate) fn request() -> Request {
    let build_arg =
        |name: &str, value: &str| BuildArg { name: name.to_owned(), value: Some(value.to_owned()) };
    let platform = Platform::new("linux", "amd64", None);
    Request { build_args: vec![build_arg("A", "a b"), build_arg("B", "")], ..Request::plain(platform) }
}

/// Nothing is known of any image.
pub(crate) struct NoImages;

impl Images for NoImages {
    fn resolve(
        &mut self,
        _: &Reference,
        _: &Platform,
        _: ::dockerfile::Span,
    ) -> Result<BaseImage, ImageError> {
        let message = "there are no images".to_owned();
        Err(ImageError { cause: ImageErrorCause::NotFound, message, notes: Vec::new(), help: None })
    }
}

/// Every image is the same one, and behind every address is the address.
pub(crate) struct AnyImage;

impl Images for AnyImage {
    fn resolve(
        &mut self,
        _: &Reference,
        _: &Platform,
        _: ::dockerfile::Span,
    ) -> Result<BaseImage, ImageError> {
        let json = br#"{"os":"linux","architecture":"amd64","config":{"Env":["PATH=/bin"],"OnBuild":["RUN x"]},"rootfs":{"type":"layers","diff_ids":[]}}"#;
        let config = Config::from_json(json).expect("the constant is a config");
        Ok(BaseImage { image: ImageId::new(Digest::of(json)), config })
    }

    fn fetch(&mut self, request: &RemoteRequest) -> Result<RemoteContent, RemoteError> {
        let file_name = request.url().rsplit('/').next().map(ToOwned::to_owned);
        Ok(RemoteContent { digest: Digest::of(request.url()), file_name })
    }
}
