//! Limits and name rules of the contract (section 13), changeable by the operator.

/// A member of a request that is not acceptable: which one and what would be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidField {
    /// The member's path as the wire spells it, for example `customRuntimeConfig.port`.
    pub field: String,
    /// What is wrong and what would be right, to be read after the field's name.
    pub problem: String,
}

impl InvalidField {
    /// Names `field` and says what is wrong with it.
    #[must_use]
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

impl From<crate::InvalidId> for InvalidField {
    fn from(invalid: crate::InvalidId) -> Self {
        Self::new(invalid.what, format!("is invalid: {}", invalid.rule))
    }
}

/// What the platform accepts. The defaults are the vendor's.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Largest body of a synchronous call and of its answer, in bytes.
    pub payload_bytes_max: usize,
    /// Largest body of a request that passes through to a function's own server and is never held, in bytes. The
    /// contract has one limit for both; this one costs no memory.
    pub streamed_bytes_max: usize,
    /// Largest inline code package, in bytes of the zip.
    pub code_bytes_max: usize,
    /// Largest sum of unpacked files of one package, in bytes.
    pub unpacked_bytes_max: u64,
    /// Most entries in one package.
    pub unpacked_entries_max: u64,
    /// Most bytes of an image, the archive and what it unpacks to together.
    pub image_bytes_max: u64,
    /// Most files, links and folders of an image.
    pub image_entries_max: u64,
    /// Most images of one account's own.
    pub images_per_account_max: usize,
    /// Smallest and largest memory, in MB.
    pub memory_mb: (i64, i64),
    /// Memory is a multiple of this many MB.
    pub memory_step_mb: i64,
    /// Smallest and largest run time, in seconds.
    pub timeout_s: (i64, i64),
    /// Longest initializer, in seconds.
    pub initializer_s_max: i64,
    /// Longest pre-stop hook, in seconds.
    pub pre_stop_s_max: i64,
    /// Most calls at a time in one instance.
    pub concurrency_max: i64,
    /// Most bytes of all environment variables' names and values.
    pub env_bytes_max: usize,
    /// Longest description, in characters.
    pub description_chars_max: usize,
    /// Most functions of one account.
    pub functions_per_account_max: usize,
    /// Most triggers of one function.
    pub triggers_per_function_max: usize,
    /// Most versions of one function that exist at a time.
    pub versions_per_function_max: usize,
    /// Most aliases of one function.
    pub aliases_per_function_max: usize,
    /// Most layers of one function.
    pub layers_per_function_max: usize,
    /// Most bytes of zip of all layers of one function.
    pub layers_bytes_max: u64,
    /// Most versions of one layer that exist at a time.
    pub layer_versions_max: usize,
    /// Most custom domains of one account.
    pub domains_per_account_max: usize,
    /// Most routes of one custom domain.
    pub routes_per_domain_max: usize,
    /// Most rewrite rules of all routes of one custom domain.
    pub rewrite_rules_per_domain_max: usize,
    /// Most instances of one account at a time.
    pub instances_per_account_max: usize,
    /// Longest stored log line, in bytes.
    pub log_line_bytes_max: usize,
    /// Largest set of headers of a call through a function URL, in bytes.
    pub header_bytes_max: usize,
    /// Longest path with query of a call through a function URL, in bytes.
    pub path_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payload_bytes_max: 32 << 20,
            streamed_bytes_max: 16 << 30,
            code_bytes_max: 100 << 20,
            unpacked_bytes_max: 1 << 30,
            unpacked_entries_max: 100_000,
            image_bytes_max: 10 << 30,
            image_entries_max: 500_000,
            images_per_account_max: 100,
            memory_mb: (128, 32_768),
            memory_step_mb: 64,
            timeout_s: (1, 86_400),
            initializer_s_max: 300,
            pre_stop_s_max: 90,
            concurrency_max: 200,
            env_bytes_max: 4 << 10,
            description_chars_max: 256,
            functions_per_account_max: 10_000,
            triggers_per_function_max: 50,
            versions_per_function_max: 10_000,
            aliases_per_function_max: 1000,
            layers_per_function_max: 5,
            layers_bytes_max: 2 << 30,
            layer_versions_max: 100,
            domains_per_account_max: 1000,
            routes_per_domain_max: 100,
            rewrite_rules_per_domain_max: 100,
            instances_per_account_max: 300,
            log_line_bytes_max: 32 << 10,
            header_bytes_max: 8 << 10,
            path_bytes_max: 4 << 10,
        }
    }
}
