//! What stands behind the question mark of a URL.
//!
//! The rules: a parameter that the request does not know, or that is there twice, is refused: a misspelt limit must not
//! silently be no limit; every number has its bounds, and the message names them.

use std::collections::BTreeMap;

use axum::http::Uri;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Type;
use utoipa::openapi::{ObjectBuilder, Required};

use crate::fields;
use crate::limits::NUMBER_MAX;
use crate::routes::percent_decoded;

/// A parameter that a request knows, as its URL is read by and as the OpenAPI document shows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) kind: Kind,
}

/// What a parameter may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// From 1 to `most`; `usual` if it is not there.
    Count { usual: usize, most: usize },
    /// A whole number from `least` to [`NUMBER_MAX`].
    Number { least: u64 },
    /// One of these texts, or not there.
    OneOf(&'static [&'static str]),
    /// One of these texts, and always there.
    Required(&'static [&'static str]),
}

impl Known {
    /// For the OpenAPI document.
    pub(crate) fn document(self) -> Parameter {
        let number = |least: u64| ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(least));
        let text = |texts: &'static [&'static str]| {
            ObjectBuilder::new().schema_type(Type::String).enum_values(Some(texts.iter().copied()))
        };
        let schema = match self.kind {
            Kind::Count { usual, most } => {
                number(1).maximum(Some(most as u64)).default(Some(serde_json::Value::from(usual)))
            }
            Kind::Number { least } => number(least).maximum(Some(NUMBER_MAX)),
            Kind::OneOf(texts) | Kind::Required(texts) => text(texts),
        };
        let required = if matches!(self.kind, Kind::Required(_)) { Required::True } else { Required::False };
        let parameter = ParameterBuilder::new().name(self.name).parameter_in(ParameterIn::Query).required(required);
        parameter.description(Some(self.about)).schema(Some(schema)).build()
    }
}

/// A request's parameters as a type, for its handler and for the document of that handler.
macro_rules! query {
    ($($(#[$doc:meta])* $name:ident = [$($known:expr),+ $(,)?];)+) => {
        $(
            $(#[$doc])*
            pub(crate) struct $name;

            impl $name {
                pub(crate) const KNOWN: &[crate::query::Known] = &[$($known),+];
            }

            impl utoipa::IntoParams for $name {
                fn into_params(
                    _: impl Fn() -> Option<utoipa::openapi::path::ParameterIn>,
                ) -> Vec<utoipa::openapi::path::Parameter> {
                    Self::KNOWN.iter().map(|known| known.document()).collect()
                }
            }
        )+
    };
}
pub(crate) use query;

/// The parameters of a request.
pub(crate) struct Parameters {
    known: &'static [Known],
    sent: BTreeMap<String, String>,
}

impl Parameters {
    /// Those of `uri`, each of which must be one of `known`.
    ///
    /// # Errors
    /// Which is not, is there twice, or can't be decoded.
    pub(crate) fn read(uri: &Uri, known: &'static [Known]) -> Result<Self, String> {
        let mut sent = BTreeMap::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = percent_decoded(name).zip(percent_decoded(value));
            let (name, value) = decoded.ok_or("the query must be percent-encoded UTF-8, %25 for a %")?;
            if !known.iter().any(|known| known.name == name) {
                let names: Vec<_> = known.iter().map(|known| known.name).collect();
                return Err(format!("{name:?} is not known here; known are {}", names.join(", ")));
            }
            if sent.insert(name.clone(), value).is_some() {
                return Err(format!("{name} must be sent at most once"));
            }
        }
        Ok(Self { known, sent })
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.sent.get(name).map(String::as_str)
    }

    /// A whole number from 1 to [`NUMBER_MAX`].
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = fields::positive(text).filter(|number| *number <= NUMBER_MAX);
        number.map(Some).ok_or_else(|| format!("{name} must be a whole number from 1 to {NUMBER_MAX}"))
    }

    /// How many to show.
    ///
    /// # Errors
    /// It is not within its bounds.
    pub(crate) fn count(&self, name: &str) -> Result<usize, String> {
        let bounds = self.known.iter().find_map(|known| match known.kind {
            Kind::Count { usual, most } if known.name == name => Some((usual, most)),
            _ => None,
        });
        let (usual, most) = bounds.expect("a count is asked for by a name that is known as one");
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
        const KNOWN: &[Known] = &[Known { name: "depth", about: "", kind: Kind::Count { usual: 10, most: 500 } }];
        let count = Parameters::read(&uri, KNOWN).and_then(|found| found.count("depth"));
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
