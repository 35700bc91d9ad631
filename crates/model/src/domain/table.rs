//! Which route a request takes (contract section 9.5).

use super::path::PathPattern;
use super::rewrite::Rewrite;
use super::{PathConfig, RouteConfig};
use crate::ids::{FunctionName, Qualifier};
use crate::limits::{InvalidField, Limits};
use crate::trigger::Method;

/// The routes of a domain, ready to be searched.
#[derive(Clone, Debug, Default)]
pub struct RouteTable {
    /// The most specific first; routes of one path stand together.
    routes: Vec<Route>,
}

/// One route, compiled.
#[derive(Clone, Debug)]
pub struct Route {
    /// Which paths.
    pub pattern: PathPattern,
    /// The function.
    pub function: FunctionName,
    /// What of it.
    pub qualifier: Qualifier,
    /// Which methods; empty means all.
    pub methods: Vec<Method>,
    /// What the function sees instead of the path.
    pub rewrite: Rewrite,
}

/// What the table says of a request.
#[derive(Clone, Debug)]
pub enum Routed<'a> {
    /// Its route.
    To(&'a Route),
    /// The path is served for these methods only.
    OtherMethods(Vec<Method>),
    /// Nothing is served there.
    Nowhere,
}

impl RouteTable {
    /// Compiles the routes.
    ///
    /// # Errors
    /// The member that is wrong: one that is malformed, or a route in the way of another.
    pub fn new(config: &RouteConfig, limits: &Limits) -> Result<Self, InvalidField> {
        let given = config.routes.len();
        if given > limits.routes_per_domain_max {
            let problem = format!("may hold {} routes at most (actual: {given})", limits.routes_per_domain_max);
            return Err(InvalidField::new("routeConfig.routes", problem));
        }
        let rules: usize = config.routes.iter().map(rules_of).sum();
        if rules > limits.rewrite_rules_per_domain_max {
            let problem =
                format!("may hold {} rewrite rules at most together (actual: {rules})", limits.rewrite_rules_per_domain_max);
            return Err(InvalidField::new("routeConfig.routes", problem));
        }
        let mut routes: Vec<Route> = Vec::with_capacity(given);
        for (index, config) in config.routes.iter().enumerate() {
            let field = format!("routeConfig.routes[{index}]");
            let route = Route::new(config, &field)?;
            if let Some(other) = routes.iter().position(|other| other.is_in_the_way_of(&route)) {
                let problem = format!("is the path of routeConfig.routes[{other}] as well, for the same methods");
                return Err(InvalidField::new(format!("{field}.path"), problem));
            }
            routes.push(route);
        }
        // Stable: the order in which routes of one path were given stays.
        routes.sort_by_key(|route| std::cmp::Reverse(route.pattern.specificity()));
        Ok(Self { routes })
    }

    /// The route of a [canonical](super::canonical_path) path: one path before a prefix, a long prefix before a short one.
    /// What is more specific counts alone, whatever methods it is for.
    #[must_use]
    pub fn find(&self, canonical: &str, method: &str) -> Routed<'_> {
        let mut matching = self.routes.iter().filter(|route| route.pattern.matches(canonical)).peekable();
        let Some(first) = matching.peek().map(|route| &route.pattern) else { return Routed::Nowhere };
        let alike: Vec<&Route> = matching.take_while(|route| route.pattern == *first).collect();
        match alike.iter().find(|route| route.serves(method)) {
            Some(route) => Routed::To(route),
            None => Routed::OtherMethods(alike.iter().flat_map(|route| route.methods.iter().copied()).collect()),
        }
    }

    /// All routes.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

impl Route {
    fn new(config: &PathConfig, field: &str) -> Result<Self, InvalidField> {
        let member = |name: &str| format!("{field}.{name}");
        let path = config.path.as_deref().ok_or_else(|| InvalidField::new(member("path"), "is required"))?;
        let pattern = PathPattern::parse(path).map_err(|problem| InvalidField::new(member("path"), problem))?;
        let function = config.function_name.as_deref().ok_or_else(|| InvalidField::new(member("functionName"), "is required"))?;
        let function = function.parse().map_err(|invalid: crate::InvalidId| {
            InvalidField::new(member("functionName"), format!("is invalid: {}", invalid.rule))
        })?;
        let rewrite = match &config.rewrite_config {
            Some(rules) => Rewrite::new(rules, &member("rewriteConfig"))?,
            None => Rewrite::default(),
        };
        Ok(Self {
            pattern,
            function,
            qualifier: Qualifier::from_wire(config.qualifier.as_deref()),
            methods: config.methods.clone().unwrap_or_default(),
            rewrite,
        })
    }

    fn serves(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|allowed| allowed.as_str() == method)
    }

    fn is_in_the_way_of(&self, other: &Self) -> bool {
        let all = self.methods.is_empty() || other.methods.is_empty();
        self.pattern == other.pattern && (all || self.methods.iter().any(|method| other.methods.contains(method)))
    }
}

fn rules_of(route: &PathConfig) -> usize {
    route.rewrite_config.as_ref().map_or(0, |rules| {
        [&rules.equal_rules, &rules.wildcard_rules, &rules.regex_rules].into_iter().flatten().map(Vec::len).sum()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{RewriteConfig, RewriteRule};

    fn route(path: &str, function: &str, methods: &[Method]) -> PathConfig {
        PathConfig {
            path: Some(path.to_owned()),
            function_name: Some(function.to_owned()),
            methods: Some(methods.to_vec()),
            ..PathConfig::default()
        }
    }

    fn table(routes: Vec<PathConfig>) -> Result<RouteTable, InvalidField> {
        RouteTable::new(&RouteConfig { routes }, &Limits::default())
    }

    fn found(table: &RouteTable, method: &str, path: &str) -> String {
        match table.find(path, method) {
            Routed::To(route) => route.function.to_string(),
            Routed::OtherMethods(methods) => methods.iter().map(|method| method.as_str()).collect::<Vec<_>>().join(" "),
            Routed::Nowhere => "nowhere".to_owned(),
        }
    }

    #[test]
    fn the_most_specific_route_is_taken_whatever_their_order() {
        let mut routes = vec![
            route("/*", "all", &[]),
            route("/api/*", "api", &[]),
            route("/api/v1/*", "v1", &[]),
            route("/api/v1/me", "me", &[]),
            route("/", "home", &[]),
        ];
        for _ in 0..routes.len() {
            routes.rotate_left(1);
            let table = table(routes.clone()).unwrap();
            for (path, function) in [
                ("/", "home"),
                ("/x", "all"),
                ("/api", "all"),
                ("/api/", "api"),
                ("/api/v2/me", "api"),
                ("/api/v1/", "v1"),
                ("/api/v1/me", "me"),
                ("/api/v1/me/", "v1"),
            ] {
                assert_eq!(found(&table, "GET", path), function, "{path}");
            }
        }
    }

    #[test]
    fn methods_choose_between_routes_of_one_path_only() {
        let table = table(vec![
            route("/a", "read", &[Method::Get, Method::Head]),
            route("/a", "write", &[Method::Post]),
            route("/*", "all", &[]),
        ])
        .unwrap();
        assert_eq!(found(&table, "GET", "/a"), "read");
        assert_eq!(found(&table, "POST", "/a"), "write");
        assert_eq!(found(&table, "DELETE", "/a"), "GET HEAD POST", "the prefix does not take over");
        assert_eq!(found(&table, "DELETE", "/b"), "all");
    }

    #[test]
    fn without_a_route_there_is_nothing() {
        assert_eq!(found(&table(vec![]).unwrap(), "GET", "/"), "nowhere");
        assert_eq!(found(&table(vec![route("/a/*", "f", &[])]).unwrap(), "GET", "/a"), "nowhere");
    }

    #[test]
    fn routes_in_each_others_way_and_wrong_members_are_named() {
        let rules = |count: usize| {
            let rule = RewriteRule { pattern: "/a".into(), replacement: "/b".into() };
            Some(RewriteConfig { equal_rules: Some(vec![rule; count]), ..RewriteConfig::default() })
        };
        let limits = Limits::default();
        let many = (0..=limits.routes_per_domain_max).map(|index| route(&format!("/{index}"), "f", &[])).collect();
        let cases: Vec<(Vec<PathConfig>, &str)> = vec![
            (vec![route("/a", "f", &[]), route("/a", "g", &[Method::Get])], "routeConfig.routes[1].path"),
            (vec![route("/a/*", "f", &[Method::Get]), route("/%61/*", "f", &[Method::Get])], "routeConfig.routes[1].path"),
            (vec![route("a", "f", &[])], "routeConfig.routes[0].path"),
            (vec![PathConfig { path: None, ..route("/", "f", &[]) }], "routeConfig.routes[0].path"),
            (vec![route("/", "9", &[])], "routeConfig.routes[0].functionName"),
            (vec![PathConfig { function_name: None, ..route("/", "f", &[]) }], "routeConfig.routes[0].functionName"),
            (many, "routeConfig.routes"),
            (
                vec![PathConfig { rewrite_config: rules(limits.rewrite_rules_per_domain_max + 1), ..route("/", "f", &[]) }],
                "routeConfig.routes",
            ),
        ];
        for (routes, field) in cases {
            assert_eq!(table(routes).expect_err(field).field, field);
        }
        assert!(table(vec![route("/a", "f", &[Method::Get]), route("/a", "g", &[Method::Post])]).is_ok());
    }
}
