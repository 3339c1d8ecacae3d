//! A page of ours: one document without outside parts, whose style and script its policy names by their hashes.

use axum::{
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest, Sha256};

pub(super) struct Document {
    html: String,
    policy: String,
}

impl Document {
    /// `html` has one `<style>` and one `<script>`, both written out in it.
    pub(super) fn new(html: String) -> Self {
        let style = hash(inside(&html, "style"));
        let script = hash(inside(&html, "script"));
        // Nothing runs and nothing is asked but what stands in the page; no text becomes markup.
        let policy = format!(
            "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
             trusted-types 'none'"
        );
        Self { html, policy }
    }

    pub(super) fn answer(&'static self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-cache"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CONTENT_SECURITY_POLICY, self.policy.as_str()),
            (header::REFERRER_POLICY, "no-referrer"),
            (
                HeaderName::from_static("cross-origin-opener-policy"),
                "same-origin",
            ),
        ];
        (headers, self.html.as_str()).into_response()
    }
}

/// What stands between the tags of the first element of this kind; nothing where there is none.
fn inside<'a>(html: &'a str, element: &str) -> &'a str {
    let content = html
        .split_once(&format!("<{element}"))
        .and_then(|(_, rest)| rest.split_once('>'))
        .and_then(|(_, rest)| rest.split_once(&format!("</{element}>")));
    content.map_or("", |(content, _)| content)
}

fn hash(text: &str) -> String {
    format!("sha256-{}", BASE64_STANDARD.encode(Sha256::digest(text)))
}

/// For the tests of each page.
#[cfg(test)]
impl Document {
    /// That the policy names its style and script, and that it asks nobody and makes markup of no text.
    pub(super) fn assert_safe(&self) {
        for (element, word) in [("style", "body"), ("script", "fetch(")] {
            let content = inside(&self.html, element);
            assert!(content.contains(word), "{element}: {content}");
            assert!(self.policy.contains(&hash(content)), "{}", self.policy);
            assert_eq!(
                self.html.matches(&format!("</{element}>")).count(),
                1,
                "more than one {element}"
            );
        }
        assert!(!self.policy.contains("unsafe"), "{}", self.policy);
        for foreign in ["https://", "src=\"http", "@import", "url("] {
            assert!(!self.html.contains(foreign), "{foreign}");
        }
        for unsafe_way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "localStorage",
            "document.cookie",
            " style=\"",
            " onclick=",
        ] {
            assert!(!self.html.contains(unsafe_way), "{unsafe_way}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_names_what_stands_between_the_tags_by_its_hash() {
        let html = "<style>a{}</style><p>x</p><script type=\"module\">f()</script>";
        assert_eq!(inside(html, "style"), "a{}");
        assert_eq!(inside(html, "script"), "f()");
        // As `openssl dgst -sha256 -binary | base64` says.
        let policy = Document::new(html.to_owned()).policy;
        assert!(
            policy.contains("script-src 'sha256-GcEEE0IkDzIP5EQ6DXZaDPORqT5RTBELX8Fyzyg9yvo='"),
            "{policy}"
        );
    }
}
