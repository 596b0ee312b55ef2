//! Endpoints that are accepted and refused.

use super::*;

#[test]
fn spans_have_a_path_below_the_endpoint() {
    for (endpoint, url) in [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://collector/", "http://collector/v1/traces"),
        (
            "http://[::1]:4318/otlp/",
            "http://[::1]:4318/otlp/v1/traces",
        ),
    ] {
        assert_eq!(traces_url(endpoint).unwrap(), url);
    }
}

#[test]
fn an_endpoint_with_tls_or_credentials_is_refused() {
    for endpoint in [
        "https://collector",
        "collector:4318",
        "/v1/traces",
        "grpc://a",
    ] {
        let error = traces_url(endpoint).unwrap_err();
        assert!(
            matches!(error, ExportError::Scheme { .. }),
            "{endpoint}: {error}"
        );
        assert!(error.to_string().contains(endpoint), "{error}");
    }
    for endpoint in [
        "http://user:word@collector",
        "http://collector/?key=word",
        "http://a b:word@c",
    ] {
        let error = traces_url(endpoint).unwrap_err();
        assert!(
            matches!(error, ExportError::Credentials),
            "{endpoint}: {error}"
        );
        assert!(!error.to_string().contains("word"), "{error}");
    }
    let error = traces_url("http://a b").unwrap_err();
    assert!(matches!(error, ExportError::Url { .. }), "{error}");
}

#[test]
fn a_service_that_the_environment_names_keeps_its_name() {
    let some = |text: &str| Some(text.to_owned());
    assert!(names_service(some("a"), None));
    assert!(names_service(None, some("host.name=b, service.name=a")));
    assert!(!names_service(
        None,
        some("service.name.of=a,host=service.name")
    ));
    assert!(!names_service(None, None));
}
