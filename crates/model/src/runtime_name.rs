//! The runtime names of the contract (section 7) and the language each stands for.

use serde::{Deserialize, Serialize};

/// Which bootstrap serves a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// CPython.
    Python,
    /// Node.js.
    Node,
    /// The Java virtual machine.
    Java,
    /// PHP.
    Php,
    /// .NET.
    Dotnet,
    /// A program that fetches its calls from the vendor's runtime API, as the vendor's Go library does.
    Go,
    /// A program that fetches its calls from the AWS Lambda runtime API.
    Provided,
    /// A WebAssembly module or component.
    Wasm,
    /// An HTTP server the user brings.
    Custom,
}

/// How the platform speaks with what serves a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// A bootstrap of ours, in frames on a descriptor (`docs/design/wire.md`).
    Frames,
    /// The program asks for its calls over HTTP.
    RuntimeApi,
    /// The program is asked over HTTP.
    Http,
    /// A host of ours that runs the module: in frames, and requests pass through.
    Module,
}

impl Protocol {
    /// Whether a request that came over HTTP goes to the function as it is, and not as an event.
    #[must_use]
    pub fn passes_requests(self) -> bool {
        match self {
            Self::Http | Self::Module => true,
            Self::Frames | Self::RuntimeApi => false,
        }
    }
}

impl Language {
    /// Whether the platform writes the lines that begin and end a call in its log. Other programs write them
    /// themselves, if they like.
    #[must_use]
    pub fn has_its_log_marked(self) -> bool {
        match self {
            Self::Python | Self::Node | Self::Java | Self::Php | Self::Dotnet | Self::Provided | Self::Wasm => true,
            Self::Go | Self::Custom => false,
        }
    }

    /// Whether an interpreter of the machine runs it, rather than a program that comes with the code.
    #[must_use]
    pub fn has_interpreter(self) -> bool {
        match self {
            Self::Python | Self::Node | Self::Java | Self::Php | Self::Dotnet => true,
            Self::Go | Self::Provided | Self::Wasm | Self::Custom => false,
        }
    }

    /// Its name as its makers write it.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Python => "Python",
            Self::Node => "Node.js",
            Self::Java => "Java",
            Self::Php => "PHP",
            Self::Dotnet => ".NET",
            Self::Go => "Go",
            Self::Provided | Self::Custom => "a program of its own",
            Self::Wasm => "WebAssembly",
        }
    }

    /// How its interpreter is installed on Debian; empty where there is none to install.
    #[must_use]
    pub fn package(self) -> &'static str {
        match self {
            Self::Python => "apt-get install python3",
            Self::Node => "apt-get install nodejs",
            Self::Java => "apt-get install default-jre-headless",
            Self::Php => "apt-get install php-cli",
            Self::Dotnet => "unpack Microsoft's runtime, 3.1 or newer, into /usr/share/dotnet",
            Self::Go | Self::Provided | Self::Wasm | Self::Custom => "",
        }
    }

    /// How instances of this language are spoken with.
    #[must_use]
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Python | Self::Node | Self::Java | Self::Php | Self::Dotnet => Protocol::Frames,
            Self::Go | Self::Provided => Protocol::RuntimeApi,
            Self::Wasm => Protocol::Module,
            Self::Custom => Protocol::Http,
        }
    }
}

/// A runtime as the user named it, for example `python3.10`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Runtime(Box<str>);

/// Every runtime name of the contract, with its language where this platform has one. A name without a language is
/// known but not served.
const NAMES: &[(&str, Option<Language>)] = &[
    ("python2.7", None),
    ("python3", Some(Language::Python)),
    ("python3.9", Some(Language::Python)),
    ("python3.10", Some(Language::Python)),
    ("python3.12", Some(Language::Python)),
    ("nodejs8", Some(Language::Node)),
    ("nodejs10", Some(Language::Node)),
    ("nodejs12", Some(Language::Node)),
    ("nodejs14", Some(Language::Node)),
    ("nodejs16", Some(Language::Node)),
    ("nodejs18", Some(Language::Node)),
    ("nodejs20", Some(Language::Node)),
    ("custom", Some(Language::Custom)),
    ("custom.debian10", Some(Language::Custom)),
    ("custom.debian11", Some(Language::Custom)),
    ("custom.debian12", Some(Language::Custom)),
    ("java8", Some(Language::Java)),
    ("java11", Some(Language::Java)),
    ("go1", Some(Language::Go)),
    ("provided", Some(Language::Provided)),
    ("provided.al2", Some(Language::Provided)),
    ("provided.al2023", Some(Language::Provided)),
    ("php7.2", Some(Language::Php)),
    ("dotnetcore2.1", Some(Language::Dotnet)),
    ("dotnetcore3.1", Some(Language::Dotnet)),
    ("custom-container", Some(Language::Custom)),
    // Not the contract's: this platform's own.
    ("wasm", Some(Language::Wasm)),
    ("micro-sandbox", None),
];

impl Runtime {
    /// Accepts a name of the contract.
    ///
    /// # Errors
    /// The list of names that are served, as text for the user.
    pub fn parse(text: &str) -> Result<Self, String> {
        match NAMES.iter().find(|(name, _)| *name == text) {
            Some((_, Some(_))) => Ok(Self(text.into())),
            Some((_, None)) => Err(format!("runtime '{text}' {}; use one of {}", not_served(text), served())),
            None => Err(format!("runtime '{text}' is unknown; use one of {}", served())),
        }
    }

    /// Every name of the contract: the runtime, or why it is not served, to be read after the name.
    pub fn all() -> impl Iterator<Item = (&'static str, Result<Self, String>)> {
        NAMES.iter().map(|(name, language)| match language {
            Some(_) => (*name, Ok(Self((*name).into()))),
            None => (*name, Err(not_served(name).to_owned())),
        })
    }

    /// The name as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an image brings what is served, and not a package of code.
    #[must_use]
    pub fn is_container(&self) -> bool {
        &*self.0 == "custom-container"
    }

    /// How instances are spoken with.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.language().protocol()
    }

    /// The language that serves it.
    ///
    /// # Panics
    /// Never: [`Runtime::parse`] accepts only names with a language.
    #[must_use]
    pub fn language(&self) -> Language {
        NAMES
            .iter()
            .find_map(|(name, language)| (*name == &*self.0).then_some(*language).flatten())
            .expect("parse accepts only names with a language")
    }
}

/// Why a name of the contract is not served.
fn not_served(name: &str) -> &'static str {
    match name {
        "python2.7" => "is not supported by this platform: Python 2 ended in 2020, and the oldest Python served is 3.8",
        _ => "is not supported by this platform yet",
    }
}

fn served() -> String {
    NAMES.iter().filter(|(_, language)| language.is_some()).map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}
