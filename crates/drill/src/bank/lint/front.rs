//! The types of the values in the front matter.

use serde::Deserialize;
use toml::Spanned;

use crate::bank::question::Language;

/// The front matter of a question. Which keys are required depends on the type.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Front {
    pub(super) level: Option<Spanned<u8>>,
    pub(super) page: Option<Spanned<String>>,
    pub(super) needs: Option<Spanned<String>>,
    pub(super) asked: Option<Spanned<u8>>,
    pub(super) claim: Option<Spanned<u32>>,
    pub(super) prove: Option<Spanned<String>>,
    pub(super) shows: Option<Spanned<Vec<String>>>,
    pub(super) say: Option<Spanned<String>>,
    pub(super) program: Option<Spanned<String>>,
    pub(super) without: Option<Spanned<Vec<String>>>,
    pub(super) answer: Option<Spanned<String>>,
    pub(super) accept: Vec<String>,
    pub(super) unit: Option<String>,
    pub(super) tolerance: Option<Spanned<f64>>,
    pub(super) lines: Option<Spanned<Vec<usize>>>,
    pub(super) language: Option<Language>,
    pub(super) minutes: Option<Spanned<u8>>,
}
