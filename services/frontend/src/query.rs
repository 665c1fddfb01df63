//! What stands behind the question mark of a URL.
//!
//! The rules: a parameter that the request does not know, or that is there twice, is refused: a misspelt limit must not
//! silently be no limit; every number has its bounds, and the message names them.

use std::collections::BTreeMap;

use axum::http::Uri;

use crate::fields;
use crate::routes::percent_decoded;

/// The parameters of a request.
pub(crate) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Those of `uri`, each of which must be one of `known`.
    ///
    /// # Errors
    /// Which is not, is there twice, or can't be decoded.
    pub(crate) fn read(uri: &Uri, known: &[&str]) -> Result<Self, String> {
        let mut found = BTreeMap::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = percent_decoded(name).zip(percent_decoded(value));
            let (name, value) = decoded.ok_or("the query must be percent-encoded UTF-8, %25 for a %")?;
            if !known.contains(&name.as_str()) {
                return Err(format!("{name:?} is not known here; known are {}", known.join(", ")));
            }
            if found.insert(name.clone(), value).is_some() {
                return Err(format!("{name} must be sent at most once"));
            }
        }
        Ok(Self(found))
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A whole number above 0.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.text(name) else { return Ok(None) };
        fields::positive(text).map(Some).ok_or_else(|| format!("{name} must be a whole number above 0"))
    }

    /// How many to show: `usual`, unless another number from 1 to `most` is asked for.
    pub(crate) fn count(&self, name: &str, usual: usize, most: usize) -> Result<usize, String> {
        let number = self.number(name).ok().flatten();
        match (self.text(name), number.and_then(|number| usize::try_from(number).ok())) {
            (None, _) => Ok(usual),
            (_, Some(number)) if number <= most => Ok(number),
            _ => Err(format!("{name} must be a whole number from 1 to {most}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(query: &str, expected: Result<usize, &str>) {
        let uri = format!("/stocks/A/book?{query}").parse().expect("a URL");
        let count = Parameters::read(&uri, &["depth"]).and_then(|found| found.count("depth", 10, 500));
        match expected {
            Ok(expected) => assert_eq!(count, Ok(expected), "{query}"),
            Err(part) => assert!(count.as_ref().is_err_and(|why| why.contains(part)), "{query}: {count:?}"),
        }
    }

    #[test]
    fn a_count_is_within_its_bounds_or_refused() {
        check("", Ok(10));
        check("depth=1", Ok(1));
        check("&depth=500&", Ok(500));
        check("d%65pth=7", Ok(7));
        for nonsense in
            ["depth=0", "depth=501", "depth=-1", "depth=%2B1", "depth=1.0", "depth", "depth=99999999999999999999"]
        {
            check(nonsense, Err("from 1 to 500"));
        }
        check("depth=1&depth=1", Err("at most once"));
        check("depths=1", Err("known are depth"));
        check("depth=%zz", Err("percent-encoded"));
    }
}
