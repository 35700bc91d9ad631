//! The table of operations (contract section 3), and how a request finds its row.

use dunlin_model::InvalidField;
use percent_encoding::percent_decode_str;

/// What every path of the contract begins with.
pub(crate) const VERSION: &str = "2023-03-30";

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The contract's name, as `x-acs-action` spells it.
    pub name: &'static str,
    /// As HTTP spells it.
    pub method: &'static str,
    /// Below `/2023-03-30`; `{name}` stands for one percent-encoded segment.
    pub path: &'static str,
    /// How much it matters on hardware of one's own.
    pub need: Need,
    /// Who answers it; absent for what is not supported yet.
    pub served: Option<Served>,
}

/// How much an operation matters on hardware of one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Ordinary programs call it.
    Needed,
    /// Some do.
    Useful,
    /// Accepted and kept, without an effect.
    Kept,
    /// It concerns the vendor's data centres.
    Foreign,
    /// Not in the contract: an operation of this platform's own.
    Own,
}

/// The operations that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is the operation of its name")]
pub enum Served {
    CreateFunction,
    GetFunction,
    UpdateFunction,
    DeleteFunction,
    ListFunctions,
    GetFunctionCode,
    InvokeFunction,
    PublishFunctionVersion,
    ListFunctionVersions,
    DeleteFunctionVersion,
    CreateAlias,
    GetAlias,
    UpdateAlias,
    DeleteAlias,
    ListAliases,
    CreateTrigger,
    GetTrigger,
    UpdateTrigger,
    DeleteTrigger,
    ListTriggers,
    CreateCustomDomain,
    GetCustomDomain,
    UpdateCustomDomain,
    DeleteCustomDomain,
    ListCustomDomains,
    ListInstances,
    DisableFunctionInvocation,
    EnableFunctionInvocation,
    PutConcurrencyConfig,
    GetConcurrencyConfig,
    DeleteConcurrencyConfig,
    ListConcurrencyConfigs,
    PutProvisionConfig,
    GetProvisionConfig,
    DeleteProvisionConfig,
    ListProvisionConfigs,
    PutScalingConfig,
    GetScalingConfig,
    DeleteScalingConfig,
    ListScalingConfigs,
    PutAsyncInvokeConfig,
    GetAsyncInvokeConfig,
    DeleteAsyncInvokeConfig,
    ListAsyncInvokeConfigs,
    CreateSession,
    GetSession,
    UpdateSession,
    DeleteSession,
    ListSessions,
    PauseSession,
    ResumeSession,
    TagResources,
    UntagResources,
    ListTagResources,
    ChangeResourceGroup,
    CreateVpcBinding,
    ListVpcBindings,
    DeleteVpcBinding,
    CreateLayerVersion,
    GetLayerVersion,
    GetLayerVersionByArn,
    ListLayers,
    ListLayerVersions,
    DeleteLayerVersion,
    PutLayerACL,
    DescribeRegions,
    DunlinListLogs,
    DunlinListRecords,
    DunlinListRuntimes,
    DunlinListImages,
    DunlinPushImage,
    DunlinDeleteImage,
}

const fn route(name: &'static str, method: &'static str, path: &'static str, need: Need, served: Option<Served>) -> Route {
    Route { name, method, path, need, served }
}

use Need::{Foreign, Kept, Needed, Own, Useful};
const GET: &str = "GET";
const POST: &str = "POST";
const PUT: &str = "PUT";
const DELETE: &str = "DELETE";

/// Every operation of the contract, in its order, then the platform's own.
pub const ROUTES: &[Route] = &[
    route("CreateFunction", POST, "/functions", Needed, Some(Served::CreateFunction)),
    route("GetFunction", GET, "/functions/{functionName}", Needed, Some(Served::GetFunction)),
    route("UpdateFunction", PUT, "/functions/{functionName}", Needed, Some(Served::UpdateFunction)),
    route("DeleteFunction", DELETE, "/functions/{functionName}", Needed, Some(Served::DeleteFunction)),
    route("ListFunctions", GET, "/functions", Needed, Some(Served::ListFunctions)),
    route("GetFunctionCode", GET, "/functions/{functionName}/code", Needed, Some(Served::GetFunctionCode)),
    route("InvokeFunction", POST, "/functions/{functionName}/invocations", Needed, Some(Served::InvokeFunction)),
    route(
        "DisableFunctionInvocation",
        POST,
        "/functions/{functionName}/invoke/disable",
        Needed,
        Some(Served::DisableFunctionInvocation),
    ),
    route(
        "EnableFunctionInvocation",
        POST,
        "/functions/{functionName}/invoke/enable",
        Needed,
        Some(Served::EnableFunctionInvocation),
    ),
    route("PublishFunctionVersion", POST, "/functions/{functionName}/versions", Needed, Some(Served::PublishFunctionVersion)),
    route("ListFunctionVersions", GET, "/functions/{functionName}/versions", Needed, Some(Served::ListFunctionVersions)),
    route(
        "DeleteFunctionVersion",
        DELETE,
        "/functions/{functionName}/versions/{versionId}",
        Needed,
        Some(Served::DeleteFunctionVersion),
    ),
    route("CreateAlias", POST, "/functions/{functionName}/aliases", Needed, Some(Served::CreateAlias)),
    route("GetAlias", GET, "/functions/{functionName}/aliases/{aliasName}", Needed, Some(Served::GetAlias)),
    route("UpdateAlias", PUT, "/functions/{functionName}/aliases/{aliasName}", Needed, Some(Served::UpdateAlias)),
    route("DeleteAlias", DELETE, "/functions/{functionName}/aliases/{aliasName}", Needed, Some(Served::DeleteAlias)),
    route("ListAliases", GET, "/functions/{functionName}/aliases", Needed, Some(Served::ListAliases)),
    route("CreateTrigger", POST, "/functions/{functionName}/triggers", Needed, Some(Served::CreateTrigger)),
    route("GetTrigger", GET, "/functions/{functionName}/triggers/{triggerName}", Needed, Some(Served::GetTrigger)),
    route("UpdateTrigger", PUT, "/functions/{functionName}/triggers/{triggerName}", Needed, Some(Served::UpdateTrigger)),
    route("DeleteTrigger", DELETE, "/functions/{functionName}/triggers/{triggerName}", Needed, Some(Served::DeleteTrigger)),
    route("ListTriggers", GET, "/functions/{functionName}/triggers", Needed, Some(Served::ListTriggers)),
    route("CreateCustomDomain", POST, "/custom-domains", Needed, Some(Served::CreateCustomDomain)),
    route("GetCustomDomain", GET, "/custom-domains/{domainName}", Needed, Some(Served::GetCustomDomain)),
    route("UpdateCustomDomain", PUT, "/custom-domains/{domainName}", Needed, Some(Served::UpdateCustomDomain)),
    route("DeleteCustomDomain", DELETE, "/custom-domains/{domainName}", Needed, Some(Served::DeleteCustomDomain)),
    route("ListCustomDomains", GET, "/custom-domains", Needed, Some(Served::ListCustomDomains)),
    route(
        "PutAsyncInvokeConfig",
        PUT,
        "/functions/{functionName}/async-invoke-config",
        Needed,
        Some(Served::PutAsyncInvokeConfig),
    ),
    route(
        "GetAsyncInvokeConfig",
        GET,
        "/functions/{functionName}/async-invoke-config",
        Needed,
        Some(Served::GetAsyncInvokeConfig),
    ),
    route(
        "DeleteAsyncInvokeConfig",
        DELETE,
        "/functions/{functionName}/async-invoke-config",
        Needed,
        Some(Served::DeleteAsyncInvokeConfig),
    ),
    route("ListAsyncInvokeConfigs", GET, "/async-invoke-configs", Needed, Some(Served::ListAsyncInvokeConfigs)),
    route("GetAsyncTask", GET, "/functions/{functionName}/async-tasks/{taskId}", Needed, None),
    route("ListAsyncTasks", GET, "/functions/{functionName}/async-tasks", Needed, None),
    route("StopAsyncTask", PUT, "/functions/{functionName}/async-tasks/{taskId}/stop", Needed, None),
    route("PutConcurrencyConfig", PUT, "/functions/{functionName}/concurrency", Needed, Some(Served::PutConcurrencyConfig)),
    route("GetConcurrencyConfig", GET, "/functions/{functionName}/concurrency", Needed, Some(Served::GetConcurrencyConfig)),
    route(
        "DeleteConcurrencyConfig",
        DELETE,
        "/functions/{functionName}/concurrency",
        Needed,
        Some(Served::DeleteConcurrencyConfig),
    ),
    route("ListConcurrencyConfigs", GET, "/concurrency-configs", Needed, Some(Served::ListConcurrencyConfigs)),
    route("PutProvisionConfig", PUT, "/functions/{functionName}/provision-config", Needed, Some(Served::PutProvisionConfig)),
    route("GetProvisionConfig", GET, "/functions/{functionName}/provision-config", Needed, Some(Served::GetProvisionConfig)),
    route(
        "DeleteProvisionConfig",
        DELETE,
        "/functions/{functionName}/provision-config",
        Needed,
        Some(Served::DeleteProvisionConfig),
    ),
    route("ListProvisionConfigs", GET, "/provision-configs", Needed, Some(Served::ListProvisionConfigs)),
    route("PutScalingConfig", PUT, "/functions/{functionName}/scaling-config", Needed, Some(Served::PutScalingConfig)),
    route("GetScalingConfig", GET, "/functions/{functionName}/scaling-config", Needed, Some(Served::GetScalingConfig)),
    route("DeleteScalingConfig", DELETE, "/functions/{functionName}/scaling-config", Needed, Some(Served::DeleteScalingConfig)),
    route("ListScalingConfigs", GET, "/scaling-configs", Needed, Some(Served::ListScalingConfigs)),
    route("ListInstances", GET, "/functions/{functionName}/instances", Needed, Some(Served::ListInstances)),
    route("CreateLayerVersion", POST, "/layers/{layerName}/versions", Needed, Some(Served::CreateLayerVersion)),
    route("GetLayerVersion", GET, "/layers/{layerName}/versions/{version}", Needed, Some(Served::GetLayerVersion)),
    route("GetLayerVersionByArn", GET, "/layerarn/{arn}", Needed, Some(Served::GetLayerVersionByArn)),
    route("ListLayers", GET, "/layers", Needed, Some(Served::ListLayers)),
    route("ListLayerVersions", GET, "/layers/{layerName}/versions", Needed, Some(Served::ListLayerVersions)),
    route("DeleteLayerVersion", DELETE, "/layers/{layerName}/versions/{version}", Needed, Some(Served::DeleteLayerVersion)),
    route("PutLayerACL", PUT, "/layers/{layerName}/acl", Needed, Some(Served::PutLayerACL)),
    route("TagResources", POST, "/tags-v2", Needed, Some(Served::TagResources)),
    route("UntagResources", DELETE, "/tags-v2", Needed, Some(Served::UntagResources)),
    route("ListTagResources", GET, "/tags-v2", Needed, Some(Served::ListTagResources)),
    route("CreateSession", POST, "/functions/{functionName}/sessions", Useful, Some(Served::CreateSession)),
    route("GetSession", GET, "/functions/{functionName}/sessions/{sessionId}", Useful, Some(Served::GetSession)),
    route("UpdateSession", PUT, "/functions/{functionName}/sessions/{sessionId}", Useful, Some(Served::UpdateSession)),
    route("DeleteSession", DELETE, "/functions/{functionName}/sessions/{sessionId}", Useful, Some(Served::DeleteSession)),
    route("ListSessions", GET, "/functions/{functionName}/sessions", Useful, Some(Served::ListSessions)),
    route("PauseSession", PUT, "/functions/{functionName}/sessions/{sessionId}/pause", Kept, Some(Served::PauseSession)),
    route("ResumeSession", PUT, "/functions/{functionName}/sessions/{sessionId}/resume", Kept, Some(Served::ResumeSession)),
    route("DescribeRegions", GET, "/regions", Useful, Some(Served::DescribeRegions)),
    route("CreateVpcBinding", POST, "/functions/{functionName}/vpc-bindings", Useful, Some(Served::CreateVpcBinding)),
    route("ListVpcBindings", GET, "/functions/{functionName}/vpc-bindings", Useful, Some(Served::ListVpcBindings)),
    route("DeleteVpcBinding", DELETE, "/functions/{functionName}/vpc-bindings/{vpcId}", Useful, Some(Served::DeleteVpcBinding)),
    route("ChangeResourceGroup", PUT, "/resource-groups", Kept, Some(Served::ChangeResourceGroup)),
    route("CreateSnapshot", POST, "/functions/{functionName}/snapshots", Foreign, None),
    route("GetSnapshot", GET, "/functions/{functionName}/snapshots/{snapshotId}", Foreign, None),
    route("ListSnapshots", GET, "/snapshots", Foreign, None),
    route("DeleteSnapshot", DELETE, "/functions/{functionName}/snapshots/{snapshotId}", Foreign, None),
    // The platform's own, for its command line and its console.
    route("DunlinListLogs", GET, "/dunlin/logs", Own, Some(Served::DunlinListLogs)),
    route("DunlinListRecords", GET, "/dunlin/records", Own, Some(Served::DunlinListRecords)),
    route("DunlinListRuntimes", GET, "/dunlin/runtimes", Own, Some(Served::DunlinListRuntimes)),
    route("DunlinListImages", GET, "/dunlin/images", Own, Some(Served::DunlinListImages)),
    route("DunlinPushImage", PUT, "/dunlin/images/{imageName}", Own, Some(Served::DunlinPushImage)),
    route("DunlinDeleteImage", DELETE, "/dunlin/images/{imageName}", Own, Some(Served::DunlinDeleteImage)),
];

/// A row, and what stood for its `{…}` segments.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) route: &'static Route,
    variables: Vec<String>,
}

impl Found {
    /// The `index`th variable of the path, decoded.
    pub(crate) fn variable(&self, index: usize) -> &str {
        self.variables.get(index).map_or("", String::as_str)
    }
}

/// Finds the operation that `method` and the raw `path` mean. The path is taken as it was sent and signed: it is cut at its
/// slashes first, and each variable is decoded once.
pub(crate) fn find(method: &str, path: &str) -> Result<Option<Found>, InvalidField> {
    let Some(path) = path.strip_prefix('/').and_then(|path| path.strip_prefix(VERSION)) else { return Ok(None) };
    let matches = |route: &&Route| {
        let mut template = route.path.split('/');
        let mut given = path.split('/');
        loop {
            match (template.next(), given.next()) {
                (None, None) => return true,
                (Some(part), Some(segment)) if part.starts_with('{') => {
                    if segment.is_empty() {
                        return false;
                    }
                }
                (Some(part), Some(segment)) if part == segment => {}
                _ => return false,
            }
        }
    };
    let Some(route) = ROUTES.iter().filter(|route| route.method == method).find(matches) else { return Ok(None) };
    let mut variables = Vec::new();
    for (part, segment) in route.path.split('/').zip(path.split('/')) {
        if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            let broken = || InvalidField::new(name, "is invalid: it is not percent-encoded UTF-8");
            if !escapes_are_whole(segment) {
                return Err(broken());
            }
            variables.push(percent_decode_str(segment).decode_utf8().map_err(|_| broken())?.into_owned());
        }
    }
    Ok(Some(Found { route, variables }))
}

/// Whether every `%` is followed by two hex digits.
pub(crate) fn escapes_are_whole(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_the_73_operations_of_the_contract_once() {
        let contract: Vec<_> = ROUTES.iter().filter(|route| route.need != Own).collect();
        let names: std::collections::HashSet<_> = contract.iter().map(|route| route.name).collect();
        let ways: std::collections::HashSet<_> = contract.iter().map(|route| (route.method, route.path)).collect();
        assert_eq!((contract.len(), names.len(), ways.len()), (73, 73, 73));
        let count = |need| contract.iter().filter(|route| route.need == need).count();
        assert_eq!([count(Needed), count(Useful), count(Kept), count(Foreign)], [57, 9, 3, 4]);
    }

    #[test]
    fn every_row_is_found_by_its_own_path_and_no_earlier_row_hides_it() {
        for route in ROUTES {
            let path: Vec<&str> = route.path.split('/').map(|part| if part.starts_with('{') { "a%2Db" } else { part }).collect();
            let found = find(route.method, &format!("/{VERSION}{}", path.join("/"))).unwrap().expect(route.name);
            assert_eq!(found.route.name, route.name);
            assert!(found.variables.iter().all(|value| value == "a-b"), "{}", route.name);
        }
    }

    #[test]
    fn a_path_is_neither_normalised_nor_decoded_twice() {
        for path in [
            "",
            "/",
            "/functions",
            "/2023-03-30",
            "/2023-03-30/",
            "/2023-03-30/functions/",
            "/2023-03-30//functions",
            "/2023-03-30/./functions",
            "/2023-03-30/functions/a/../b",
            "/2023-03-30/functions//code",
            "/2023-03-30/Functions",
            "/2023-03-30/functions/f/code/x",
            "/2016-08-15/functions",
            "/2023-03-30x/functions",
            "//2023-03-30/functions",
        ] {
            let found = find("GET", path).unwrap().filter(|found| found.route.path != "/functions/{functionName}");
            assert!(found.is_none(), "{path}: {found:?}");
        }
        let found = find("GET", "/2023-03-30/functions/a%2Fb%252F").unwrap().unwrap();
        assert_eq!(found.variable(0), "a/b%2F");
        for path in
            ["/2023-03-30/functions/%", "/2023-03-30/functions/%2", "/2023-03-30/functions/%zz", "/2023-03-30/functions/%ff"]
        {
            assert_eq!(find("GET", path).expect_err(path).field, "functionName");
        }
        assert!(find("get", "/2023-03-30/functions").unwrap().is_none());
        assert!(find("TRACE", "/2023-03-30/functions").unwrap().is_none());
    }
}
