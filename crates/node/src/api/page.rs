//! The page at `/`: a few files in the binary, which use the API as any other client.
//!
//! The page itself is no secret and is served without the token. What it shows is: it asks the user
//! for the token and sends it with each request.

use axum::{
    Router,
    http::{
        HeaderName, HeaderValue,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
            X_FRAME_OPTIONS,
        },
    },
    response::Response,
    routing::get,
};

use super::answer;

/// A file of the page.
struct File {
    path: &'static str,
    kind: &'static str,
    content: &'static str,
}

macro_rules! asset {
    ($path:expr, $name:literal, $kind:literal) => {
        File {
            path: $path,
            kind: $kind,
            content: include_str!(concat!("../../page/", $name)),
        }
    };
}

macro_rules! script {
    ($name:literal) => {
        asset!(
            concat!("/page/", $name),
            $name,
            "text/javascript; charset=utf-8"
        )
    };
}

static FILES: [File; 11] = [
    asset!("/", "index.html", "text/html; charset=utf-8"),
    asset!("/page/style.css", "style.css", "text/css; charset=utf-8"),
    asset!("/page/icon.svg", "icon.svg", "image/svg+xml"),
    script!("api.js"),
    script!("blobs.js"),
    script!("dom.js"),
    script!("events.js"),
    script!("main.js"),
    script!("node.js"),
    script!("peers.js"),
    script!("topics.js"),
];

/// Scripts, styles and requests of this origin alone, no markup from text, no frame around the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// Headers of each file.
const HEADERS: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    // A newer binary has newer files.
    (CACHE_CONTROL, "no-cache"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// Returns `true` for the path of a file of the page.
pub(super) fn is_file(path: &str) -> bool {
    FILES.iter().any(|file| file.path == path)
}

/// The routes of the files.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.iter().fold(Router::new(), |router, file| {
        router.route(file.path, get(move || async move { response(file) }))
    })
}

fn response(file: &File) -> Response {
    let kind = HeaderValue::from_static(file.kind);
    let mut response = answer::of_type(kind, file.content);
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_name_each_other_and_nothing_elsewhere() {
        for File { path, content, .. } in &FILES {
            // The one address is the name of the XML namespace of SVG.
            let outside = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!outside.contains("://"), "{path}");
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "eval(",
                "style=",
            ] {
                assert!(!content.contains(forbidden), "{path}: {forbidden}");
            }
            for part in content.split(['"', '\'']) {
                let named = match part.strip_prefix("./") {
                    Some(name) if path.ends_with(".js") => format!("/page/{name}"),
                    _ if part.starts_with("/page/") => part.to_owned(),
                    _ => continue,
                };
                assert!(is_file(&named), "{path} names {named}");
            }
        }
    }
}
