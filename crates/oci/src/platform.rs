//! Platforms: `os/architecture[/variant]`, as `--platform` and image indexes name them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and processor, with the names normalised (`x86_64` is `amd64`, `aarch64` is `arm64`, arm without a variant is `v7`).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// Go's name: `amd64`, `arm64`, `arm`, `386`, `riscv64`…
    pub architecture: String,
    /// `v6`, `v7` for arm; absent for the common variant of the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why a text is not a [`Platform`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlatformError {
    /// Not one to three components.
    #[error("`{0}` is not a platform: write os/architecture or os/architecture/variant, such as linux/arm64")]
    Shape(String),
    /// A component is empty or has odd characters.
    #[error("`{0}` in platform `{1}` may only have letters, digits, `_`, `.` and `-`")]
    Component(String, String),
    /// One word that is neither an operating system nor an architecture.
    #[error(
        "`{0}` is neither an operating system nor an architecture this program knows: write both, such as linux/{0}"
    )]
    Ambiguous(String),
}

const SYSTEMS: [&str; 7] = ["linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "wasip1"];
const ARCHITECTURES: [&str; 11] =
    ["386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x", "wasm", "mips64"];

impl Platform {
    /// A platform from its parts, normalised.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = if os.eq_ignore_ascii_case("macos") { "darwin".to_owned() } else { os.to_ascii_lowercase() };
        let (architecture, variant) =
            normalise(&architecture.to_ascii_lowercase(), variant.map(str::to_ascii_lowercase));
        Self { os, architecture, variant }
    }

    /// The machine this program was compiled for.
    #[must_use]
    pub fn host() -> Self {
        Self::new("linux", std::env::consts::ARCH, None)
    }

    /// Whether an image made for `self` runs where `wanted` was asked for: equal, or an earlier arm variant. The smaller the number,
    /// the better the fit; `None` is no fit.
    #[must_use]
    pub fn fit(&self, wanted: &Self) -> Option<u32> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        if self.variant == wanted.variant {
            return Some(0);
        }
        let level = |variant: &Option<String>, default: u32| {
            variant.as_deref().map_or(Some(default), |v| v.strip_prefix('v')?.parse::<u32>().ok())
        };
        let default = if self.architecture == "amd64" { 1 } else { 8 };
        let (own, limit) = (level(&self.variant, default)?, level(&wanted.variant, default)?);
        limit.checked_sub(own)
    }
}

fn normalise(architecture: &str, variant: Option<String>) -> (String, Option<String>) {
    let variant = variant.filter(|v| !v.is_empty());
    match architecture {
        "x86_64" | "x86-64" | "amd64" => ("amd64".to_owned(), variant.filter(|v| v != "v1")),
        "i386" | "i686" | "x86" | "386" => ("386".to_owned(), None),
        "aarch64" | "arm64" => (
            "arm64".to_owned(),
            variant
                .map(|v| v.trim_start_matches('v').to_owned())
                .filter(|v| v != "8")
                .map(|v| format!("v{v}")),
        ),
        "armhf" => ("arm".to_owned(), Some("v7".to_owned())),
        "armel" => ("arm".to_owned(), Some("v6".to_owned())),
        "arm" => {
            let level = variant.as_deref().map_or("7", |v| v.trim_start_matches('v')).to_owned();
            ("arm".to_owned(), Some(format!("v{level}")))
        }
        "powerpc64le" => ("ppc64le".to_owned(), variant),
        "loongarch64" => ("loong64".to_owned(), variant),
        "riscv64gc" => ("riscv64".to_owned(), variant),
        other => (other.to_owned(), variant),
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        for part in &parts {
            if part.is_empty() || !part.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
                return Err(PlatformError::Component((*part).to_owned(), text.to_owned()));
            }
        }
        match parts[..] {
            [one] => {
                let alone = Self::new("linux", one, None);
                if SYSTEMS.contains(&one.to_ascii_lowercase().as_str()) {
                    Ok(Self::new(one, &Self::host().architecture, None))
                } else if ARCHITECTURES.contains(&alone.architecture.as_str()) {
                    Ok(alone)
                } else {
                    Err(PlatformError::Ambiguous(text.to_owned()))
                }
            }
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(PlatformError::Shape(text.to_owned())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&text.parse::<Platform>().map_or_else(|e| e.to_string(), |p| p.to_string()));
    }

    #[test]
    fn platforms_are_normalised() {
        check("linux/x86_64", expect!["linux/amd64"]);
        check("linux/amd64/v1", expect!["linux/amd64"]);
        check("linux/amd64/v3", expect!["linux/amd64/v3"]);
        check("linux/arm64/v8", expect!["linux/arm64"]);
        check("linux/arm", expect!["linux/arm/v7"]);
        check("linux/arm/v6", expect!["linux/arm/v6"]);
        check("arm64", expect!["linux/arm64"]);
        check("linux/", expect!["`` in platform `linux/` may only have letters, digits, `_`, `.` and `-`"]);
        check(
            "a/b/c/d",
            expect![
                "`a/b/c/d` is not a platform: write os/architecture or os/architecture/variant, such as linux/arm64"
            ],
        );
        check(
            "foo",
            expect![
                "`foo` is neither an operating system nor an architecture this program knows: write both, such as linux/foo"
            ],
        );
    }

    #[test]
    fn an_earlier_variant_fits_a_later_machine_only() {
        let fit = |image: &str, wanted: &str| {
            image.parse::<Platform>().unwrap().fit(&wanted.parse::<Platform>().unwrap())
        };
        assert_eq!(fit("linux/arm/v6", "linux/arm/v7"), Some(1));
        assert_eq!(fit("linux/arm/v7", "linux/arm/v6"), None);
        assert_eq!(fit("linux/amd64", "linux/amd64/v3"), Some(2));
        assert_eq!(fit("linux/amd64/v2", "linux/amd64"), None);
        assert_eq!(fit("linux/arm64", "linux/arm64"), Some(0));
        assert_eq!(fit("linux/arm64", "linux/amd64"), None);
    }
}
