//! Where the exchange listens.
//!
//! An address comes from the command line as text. It is parsed once, here, into what a connection needs (host, port)
//! and what a request needs (the `Host` header); the rest of the crate never sees text that may not be an address.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use hyper::header::HeaderValue;

/// Port of `http://host` without one.
const DEFAULT_PORT: u16 = 80;

/// The base address of a frontend: `http://host:port`, no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    host: String,
    port: u16,
    authority: HeaderValue,
}

/// Why a text is not a [`BaseUrl`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not the address of a frontend: {reason}; write it as http://127.0.0.1:8080")]
pub struct BadUrl {
    text: String,
    reason: &'static str,
}

impl BaseUrl {
    /// What a TCP connection is opened to.
    pub(crate) fn endpoint(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// The value of the `Host` header.
    pub(crate) fn authority(&self) -> HeaderValue {
        self.authority.clone()
    }
}

impl FromStr for BaseUrl {
    type Err = BadUrl;

    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let bad = |reason| BadUrl { text: text.to_owned(), reason };
        let uri: Uri = text.trim_end_matches('/').parse().map_err(|_| bad("it does not parse as a URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(bad("the exchange speaks plain http")),
            _ => return Err(bad("it has no http:// in front")),
        }
        if uri.path_and_query().is_some_and(|path| path != "/") {
            return Err(bad("it has a path, and paths are this tool's business"));
        }
        let authority = uri.authority().ok_or_else(|| bad("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("it carries a user name, which the exchange does not take here"));
        }
        // An IPv6 host stands in brackets in a URL and without them for the resolver.
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        Ok(Self {
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(DEFAULT_PORT),
            authority: HeaderValue::from_str(authority.as_str()).map_err(|_| bad("its host is not plain ASCII"))?,
        })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority.to_str().unwrap_or(&self.host))
    }
}

/// `name` as one segment of a path: all but the unreserved characters of RFC 3986 percent-encoded.
pub(crate) fn path_segment(name: &str) -> String {
    use std::fmt::Write as _;
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(segment, "%{byte:02X}");
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, host, port) in [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080),
            ("http://127.0.0.1:8080/", "127.0.0.1", 8080),
            ("http://localhost", "localhost", 80),
            ("http://[::1]:81", "::1", 81),
        ] {
            let url: BaseUrl = text.parse().unwrap();
            assert_eq!(url.endpoint(), (host, port), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused_with_a_hint() {
        for text in ["", "localhost:8080", "https://localhost", "http://u@h", "http://h/stocks", "ftp://h", "http://"] {
            let error = text.parse::<BaseUrl>().unwrap_err().to_string();
            assert!(error.contains("http://127.0.0.1:8080"), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        for (name, segment) in [("GameStart", "GameStart"), ("A/B ?", "A%2FB%20%3F"), ("é", "%C3%A9")] {
            assert_eq!(path_segment(name), segment);
        }
    }
}
