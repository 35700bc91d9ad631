//! Cross-origin rules of a trigger or a domain (contract section 9.4): the platform answers preflights and marks answers, so that
//! the function need not. A trigger without rules leaves all of this to its function.

use dunlin_model::CorsConfig;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
    HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::{Method, Response, StatusCode};

use crate::{Body, full};

/// The rules of a trigger, met by a request that has an origin.
pub(super) struct Cors<'a> {
    rules: &'a CorsConfig,
    origin: HeaderValue,
    method: Option<String>,
    headers: Vec<String>,
}

impl<'a> Cors<'a> {
    /// Nothing when the request has no origin: then it is not a script's.
    pub(super) fn of(rules: &'a CorsConfig, headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let asked = text(ACCESS_CONTROL_REQUEST_HEADERS).unwrap_or_default();
        Some(Self {
            rules,
            origin: headers.get(ORIGIN)?.clone(),
            method: text(ACCESS_CONTROL_REQUEST_METHOD).map(str::to_owned),
            headers: asked.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()).collect(),
        })
    }

    pub(super) fn is_preflight(&self, method: &Method) -> bool {
        *method == Method::OPTIONS && self.method.is_some()
    }

    /// The answer to a preflight: what is allowed, or nothing, which a browser takes for no.
    pub(super) fn preflight(&self) -> Response<Body> {
        let mut response = Response::new(full(bytes::Bytes::new()));
        *response.status_mut() = StatusCode::NO_CONTENT;
        let asked = self.method.as_deref().unwrap_or_default();
        let method_allowed = self.rules.allow_methods.is_empty()
            || self.rules.allow_methods.iter().any(|method| method == "*" || method.eq_ignore_ascii_case(asked));
        let any_header = self.rules.allow_headers.iter().any(|name| name == "*");
        let headers_allowed = any_header
            || self.headers.iter().all(|asked| self.rules.allow_headers.iter().any(|name| name.eq_ignore_ascii_case(asked)));
        let headers = response.headers_mut();
        append(headers, VARY, "access-control-request-method, access-control-request-headers");
        if self.allowed_origin().is_none() || !method_allowed || !headers_allowed {
            return response;
        }
        append(headers, ACCESS_CONTROL_ALLOW_METHODS, asked);
        if !self.headers.is_empty() {
            append(headers, ACCESS_CONTROL_ALLOW_HEADERS, &self.headers.join(", "));
        }
        if self.rules.max_age > 0 {
            append(headers, ACCESS_CONTROL_MAX_AGE, &self.rules.max_age.to_string());
        }
        response
    }

    /// Marks an answer. The trigger's rules replace what the function said.
    pub(super) fn allow(&self, headers: &mut HeaderMap) {
        for name in [ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_EXPOSE_HEADERS] {
            headers.remove(name);
        }
        append(headers, VARY, "origin");
        let Some(origin) = self.allowed_origin() else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.rules.allow_credentials {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if !self.rules.expose_headers.is_empty() {
            append(headers, ACCESS_CONTROL_EXPOSE_HEADERS, &self.rules.expose_headers.join(", "));
        }
    }

    /// With credentials a browser insists on the origin itself; `*` is for everybody else.
    fn allowed_origin(&self) -> Option<HeaderValue> {
        if self.rules.allow_origins.iter().any(|origin| origin == "*") {
            return Some(if self.rules.allow_credentials { self.origin.clone() } else { HeaderValue::from_static("*") });
        }
        self.rules.allow_origins.iter().any(|origin| origin.as_bytes() == self.origin.as_bytes()).then(|| self.origin.clone())
    }
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Rules come from the owner: a value that is no header is left out rather than failing the call.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> CorsConfig {
        CorsConfig {
            allow_credentials: true,
            allow_headers: vec!["X-One".into()],
            allow_methods: vec!["PUT".into()],
            allow_origins: vec!["https://a.example".into()],
            expose_headers: vec!["X-Two".into()],
            max_age: 60,
        }
    }

    fn preflight(rules: &CorsConfig, fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let headers: HeaderMap =
            fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
        let cors = Cors::of(rules, &headers).expect("the case has an origin");
        assert!(cors.is_preflight(&Method::OPTIONS));
        let mut response = cors.preflight();
        cors.allow(response.headers_mut());
        response.headers().clone()
    }

    #[test]
    fn a_preflight_is_granted_only_as_a_whole() {
        let good = [
            ("origin", "https://a.example"),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-one"),
        ];
        let granted = preflight(&rules(), &good);
        assert_eq!(granted["access-control-allow-origin"], "https://a.example");
        assert_eq!(granted["access-control-allow-methods"], "PUT");
        assert_eq!(granted["access-control-allow-headers"], "x-one");
        assert_eq!(granted["access-control-max-age"], "60");
        for (index, value) in [(0, "https://evil.example"), (1, "DELETE"), (2, "x-one, x-three")] {
            let mut bad = good;
            bad[index].1 = value;
            assert!(!preflight(&rules(), &bad).contains_key("access-control-allow-methods"), "{value}");
        }
    }

    #[test]
    fn a_star_with_credentials_names_the_origin() {
        let mut rules = rules();
        rules.allow_origins = vec!["*".into()];
        let asked = [("origin", "https://b.example"), ("access-control-request-method", "PUT")];
        assert_eq!(preflight(&rules, &asked)["access-control-allow-origin"], "https://b.example");
        rules.allow_credentials = false;
        assert_eq!(preflight(&rules, &asked)["access-control-allow-origin"], "*");
    }
}
