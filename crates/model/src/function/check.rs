//! The rules that members of a function's configuration obey (contract section 13).

use std::collections::BTreeMap;

use super::{CustomRuntimeConfig, FunctionConfig, LifecycleHook, Tag};
use crate::image::ImageReference;
use crate::limits::{InvalidField, Limits};
use crate::runtime_name::Language;

impl FunctionConfig {
    /// Checks every member against `limits`.
    ///
    /// # Errors
    /// The first member that is out of range, by its wire name.
    pub fn check(&self, limits: &Limits) -> Result<(), InvalidField> {
        let wrong = |field: &str, problem: String| Err(InvalidField::new(field, problem));
        let within = |field: &str, value: i64, (low, high): (i64, i64)| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(InvalidField::new(field, format!("must be between {low} and {high} (actual: {value})")))
            }
        };
        within("memorySize", self.memory_size, limits.memory_mb)?;
        if self.memory_size % limits.memory_step_mb != 0 {
            return wrong(
                "memorySize",
                format!("must be a multiple of {} (actual: {})", limits.memory_step_mb, self.memory_size),
            );
        }
        within("timeout", self.timeout, limits.timeout_s)?;
        if let Some(cpu) = self.cpu {
            let twentieths = cpu * 20.0;
            if !(0.05..=16.0).contains(&cpu) || (twentieths - twentieths.round()).abs() > 1e-6 {
                return wrong("cpu", format!("must be between 0.05 and 16 in steps of 0.05 (actual: {cpu})"));
            }
            #[expect(clippy::cast_precision_loss, reason = "memory is at most 32768")]
            let memory_gb = self.memory_size as f64 / 1024.0;
            if memory_gb / cpu > 4.0 + 1e-6 || memory_gb / cpu < 1.0 - 1e-6 {
                return wrong(
                    "cpu",
                    format!(
                        "must be between a quarter of and as much as memorySize in GB (actual: {cpu} vCPU with {memory_gb} GB)"
                    ),
                );
            }
        }
        if let Some(disk) = self.disk_size.filter(|disk| ![512, 10_240].contains(disk)) {
            return wrong("diskSize", format!("must be 512 or 10240 (actual: {disk})"));
        }
        if let Some(concurrency) = self.instance_concurrency {
            within("instanceConcurrency", concurrency, (1, limits.concurrency_max))?;
            if concurrency > 1 && self.runtime.language() == Language::Php {
                return wrong("instanceConcurrency", format!("must be 1 for PHP, which has no threads (actual: {concurrency})"));
            }
            if concurrency > 1 && self.runtime.language() == Language::Dotnet {
                let why = "whose instances serve one call at a time";
                return wrong("instanceConcurrency", format!("must be 1 for .NET, {why} (actual: {concurrency})"));
            }
        }
        if let Some(idle) = self.idle_timeout {
            within("idleTimeout", idle, (0, 21_600))?;
        }
        if self.description.chars().count() > limits.description_chars_max {
            return wrong("description", format!("must be at most {} characters", limits.description_chars_max));
        }
        self.check_handler()?;
        if let Some(variables) = &self.environment_variables {
            check_environment(variables, limits)?;
        }
        if let Some(custom) = &self.custom_runtime_config {
            check_custom(custom)?;
        }
        if self.runtime.is_container() {
            self.check_container()?;
        }
        if let Some(hooks) = &self.instance_lifecycle_config {
            check_hook("instanceLifecycleConfig.initializer", hooks.initializer.as_ref(), limits.initializer_s_max)?;
            check_hook("instanceLifecycleConfig.preStop", hooks.pre_stop.as_ref(), limits.pre_stop_s_max)?;
            let set = |hook: &Option<LifecycleHook>| hook.as_ref().is_some_and(LifecycleHook::is_set);
            if self.runtime.language() == Language::Wasm && (set(&hooks.initializer) || set(&hooks.pre_stop)) {
                let why = "is not supported for the runtime wasm: every call has an instance of its own, so there is nothing to prepare";
                return wrong("instanceLifecycleConfig", why.to_owned());
            }
        }
        if let Some(tags) = &self.tags {
            check_tags(tags)?;
        }
        self.check_sessions()
    }

    fn check_container(&self) -> Result<(), InvalidField> {
        let wrong = |member: &str, problem: &str| Err(InvalidField::new(format!("customContainerConfig.{member}"), problem));
        let container = self.container()?;
        let image = container.image.as_deref().unwrap_or_default();
        if image.is_empty() {
            return wrong("image", "is required for the runtime custom-container: REGISTRY/REPOSITORY:TAG, or local/NAME:TAG");
        }
        if let Err(invalid) = image.parse::<ImageReference>() {
            return wrong("image", &format!("is invalid: {}", invalid.rule));
        }
        check_server("customContainerConfig", &container.server())?;
        check_words("customContainerConfig.entrypoint", container.entrypoint.as_deref())?;
        check_words("customContainerConfig.command", container.command.as_deref())?;
        let certificates = container.registry_config.and_then(|registry| registry.cert_config).unwrap_or_default();
        if certificates.insecure == Some(true) {
            return wrong("registryConfig.certConfig.insecure", "must be false: registries are spoken with over verified TLS");
        }
        if certificates.root_ca_cert_base64.is_some_and(|authority| !authority.is_empty()) {
            let why = "is not supported: add the authority to those that the machine trusts";
            return wrong("registryConfig.certConfig.rootCaCertBase64", why);
        }
        if self.layers.as_ref().is_some_and(|layers| !layers.is_empty()) {
            return Err(InvalidField::new(
                "layers",
                "must be empty for the runtime custom-container: put the files into the image",
            ));
        }
        Ok(())
    }

    fn check_handler(&self) -> Result<(), InvalidField> {
        if self.handler.len() > 128 || self.handler.chars().any(char::is_control) {
            return Err(InvalidField::new("handler", "must be at most 128 characters without control characters"));
        }
        match self.runtime.language() {
            Language::Python | Language::Node | Language::Php => check_handler_form("handler", &self.handler),
            Language::Java => check_java_handler("handler", &self.handler),
            Language::Dotnet => check_dotnet_handler("handler", &self.handler),
            Language::Go => check_program(&self.handler),
            Language::Wasm => check_module(&self.handler),
            Language::Custom | Language::Provided => Ok(()),
        }
    }
}

fn check_handler_form(field: &str, handler: &str) -> Result<(), InvalidField> {
    let well_formed = handler.rsplit_once('.').is_some_and(|(file, function)| {
        !file.is_empty()
            && !function.is_empty()
            && !file.starts_with('/')
            && file.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
    });
    if well_formed && !handler.contains('\\') {
        Ok(())
    } else {
        Err(InvalidField::new(
            field,
            format!("must have the form 'file.function', for example 'index.handler' (actual: {handler:?})"),
        ))
    }
}

fn check_java_handler(field: &str, handler: &str) -> Result<(), InvalidField> {
    let name = |text: &str, dots: bool| {
        !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '$') || (dots && c == '.'))
    };
    if handler.split_once("::").is_some_and(|(class, method)| name(class, true) && name(method, false)) {
        Ok(())
    } else {
        let form = "must have the form 'package.Class::method', for example 'example.App::handleRequest'";
        Err(InvalidField::new(field, format!("{form} (actual: {handler:?})")))
    }
}

fn check_dotnet_handler(field: &str, handler: &str) -> Result<(), InvalidField> {
    let parts: Vec<&str> = handler.split("::").collect();
    let name = |text: &&str| !text.is_empty() && !text.contains([':', '/', '\\']) && !text.contains(char::is_whitespace);
    if parts.len() == 3 && parts.iter().all(name) {
        Ok(())
    } else {
        let form = "must have the form 'Assembly::Namespace.Class::Method', for example 'App::Example.Hello::Handle'";
        Err(InvalidField::new(field, format!("{form} (actual: {handler:?})")))
    }
}

/// The name of a file in the package.
fn check_program(handler: &str) -> Result<(), InvalidField> {
    if !handler.starts_with('/') && handler.split('/').all(|part| !part.is_empty() && part != "." && part != "..") {
        Ok(())
    } else {
        Err(InvalidField::new("handler", format!("must name a file in the package, for example 'main' (actual: {handler:?})")))
    }
}

/// The name of a file in the package's top folder; one that is no `.wasm` file, or none, stands for the default.
fn check_module(handler: &str) -> Result<(), InvalidField> {
    if !handler.contains('/') && (handler.len() > ".wasm".len() || !handler.ends_with(".wasm")) {
        Ok(())
    } else {
        let form = "must name a .wasm file in the top folder of the package, for example 'main.wasm'";
        Err(InvalidField::new("handler", format!("{form} (actual: {handler:?})")))
    }
}

fn check_environment(variables: &BTreeMap<String, String>, limits: &Limits) -> Result<(), InvalidField> {
    let mut total = 0;
    for (name, value) in variables {
        let field = || format!("environmentVariables.{}", name.escape_debug());
        let bytes = name.as_bytes();
        let well_formed =
            bytes.first().is_some_and(u8::is_ascii_alphabetic) && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
        if !well_formed {
            return Err(InvalidField::new(field(), "is invalid: a name must match ^[A-Za-z][A-Za-z0-9_]*$"));
        }
        if name.starts_with("FC_") {
            return Err(InvalidField::new(field(), "is invalid: names that start with FC_ are reserved"));
        }
        if value.contains('\0') {
            return Err(InvalidField::new(field(), "is invalid: a value cannot hold a NUL character"));
        }
        total += name.len() + value.len();
    }
    if total > limits.env_bytes_max {
        return Err(InvalidField::new(
            "environmentVariables",
            format!("must be at most {} bytes in total (actual: {total})", limits.env_bytes_max),
        ));
    }
    Ok(())
}

fn check_custom(custom: &CustomRuntimeConfig) -> Result<(), InvalidField> {
    check_server("customRuntimeConfig", custom)?;
    check_words("customRuntimeConfig.command", custom.command.as_deref())?;
    check_words("customRuntimeConfig.args", custom.args.as_deref())
}

fn check_words(field: &str, words: Option<&[String]>) -> Result<(), InvalidField> {
    if words.unwrap_or_default().iter().any(|word| word.contains('\0') || word.len() > 4096) {
        return Err(InvalidField::new(field, "is invalid: a word is at most 4096 bytes and holds no NUL character"));
    }
    Ok(())
}

/// Where the user's server listens and when it is up, in `member`.
fn check_server(member: &str, custom: &CustomRuntimeConfig) -> Result<(), InvalidField> {
    if let Some(port) = custom.port.filter(|port| !(1..=65_535).contains(port)) {
        return Err(InvalidField::new(format!("{member}.port"), format!("must be between 1 and 65535 (actual: {port})")));
    }
    if let Some(health) = &custom.health_check_config {
        let bounds = [
            ("initialDelaySeconds", health.initial_delay_seconds, 0, 120),
            ("periodSeconds", health.period_seconds, 1, 120),
            ("timeoutSeconds", health.timeout_seconds, 1, 3),
            ("failureThreshold", health.failure_threshold, 1, 120),
            ("successThreshold", health.success_threshold, 1, 120),
        ];
        for (field, value, low, high) in bounds {
            if value.is_some_and(|value| !(low..=high).contains(&value)) {
                return Err(InvalidField::new(
                    format!("{member}.healthCheckConfig.{field}"),
                    format!("must be between {low} and {high}"),
                ));
            }
        }
        if health.http_get_url.as_ref().is_some_and(|url| url.len() > 2048 || url.chars().any(|c| c.is_control() || c == ' ')) {
            return Err(InvalidField::new(
                format!("{member}.healthCheckConfig.httpGetUrl"),
                "must be a path of at most 2048 characters",
            ));
        }
    }
    Ok(())
}

fn check_hook(field: &str, hook: Option<&LifecycleHook>, seconds_max: i64) -> Result<(), InvalidField> {
    let Some(hook) = hook else { return Ok(()) };
    let handler = hook.handler.as_deref().unwrap_or_default();
    if !handler.is_empty() && hook.command.as_ref().is_some_and(|command| !command.is_empty()) {
        return Err(InvalidField::new(field, "must have a handler or a command, not both"));
    }
    if hook.command.as_ref().is_some_and(|command| !command.is_empty()) {
        // A cell executes one program in its life; what runs afterwards is asked, not told.
        return Err(InvalidField::new(format!("{field}.command"), "is not supported: name a handler instead"));
    }
    if handler.len() > 128 || handler.chars().any(char::is_control) {
        return Err(InvalidField::new(format!("{field}.handler"), "must be at most 128 characters without control characters"));
    }
    if hook.timeout.is_some_and(|timeout| !(1..=seconds_max).contains(&timeout)) {
        return Err(InvalidField::new(format!("{field}.timeout"), format!("must be between 1 and {seconds_max}")));
    }
    Ok(())
}

fn check_tags(tags: &[Tag]) -> Result<(), InvalidField> {
    if tags.len() > 20 {
        return Err(InvalidField::new("tags", "must be at most 20"));
    }
    for tag in tags {
        let reserved = tag.key.starts_with("aliyun")
            || tag.key.starts_with("acs:")
            || tag.key.contains("http://")
            || tag.key.contains("https://");
        if tag.key.is_empty() || tag.key.chars().count() > 64 || reserved {
            return Err(InvalidField::new(
                "tags",
                "is invalid: a Key has 1 to 64 characters and does not start with 'aliyun' or 'acs:' or hold a URL",
            ));
        }
        if tag.value.chars().count() > 128 {
            return Err(InvalidField::new("tags", "is invalid: a Value has at most 128 characters"));
        }
    }
    Ok(())
}
