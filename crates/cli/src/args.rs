//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Functions on your own machines, with Function Compute's interface.
#[derive(Debug, Parser)]
#[command(name = "dunlin", version, about, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) shared: Shared,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Shared {
    /// The platform's data directory; its credentials.json says where to go and with which key [default: ./dunlin-data]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// A credentials.json to use instead of the data directory's
    #[arg(long, global = true, value_name = "FILE", env = "DUNLIN_CREDENTIALS")]
    pub(crate) credentials: Option<PathBuf>,
    /// Where the platform listens, for example http://127.0.0.1:7900
    #[arg(long, global = true, value_name = "URL", env = "DUNLIN_ENDPOINT")]
    pub(crate) endpoint: Option<String>,
    /// The access key to sign with
    #[arg(long, global = true, value_name = "ID", env = "DUNLIN_ACCESS_KEY_ID")]
    pub(crate) access_key_id: Option<String>,
    /// Its secret
    #[arg(long, global = true, value_name = "SECRET", env = "DUNLIN_ACCESS_KEY_SECRET", hide_env_values = true)]
    pub(crate) access_key_secret: Option<String>,
    /// How to print the result
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// Short for --output json
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to use colours; NO_COLOR turns them off as well
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto)]
    pub(crate) color: Colour,
    /// Say nothing but the result and failures
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Show each request and its id on standard error
    #[arg(long, global = true)]
    pub(crate) debug: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs: the API's member names; lists are arrays, streams are lines
    Json,
    /// Names only, one a line
    Name,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the platform in the foreground
    Up(Up),
    /// Tell what this machine offers, wall by wall, and how to get what is missing
    Doctor,
    /// Create or update a function from a folder or a zip file, or everything that a project's file says
    Deploy(Deploy),
    /// Show what deploying a project would do; exits with 2 when that is anything
    Plan(Plan),
    /// Remove what a project's file names
    Remove(Remove),
    /// Call a function and print what it answers
    Invoke(Invoke),
    /// Functions
    Fn {
        #[command(subcommand)]
        command: FunctionCommand,
    },
    /// Versions: copies of a function that never change
    Version {
        #[command(subcommand)]
        command: VersionCommand,
    },
    /// Aliases: names for versions
    Alias {
        #[command(subcommand)]
        command: AliasCommand,
    },
    /// Custom domains: hosts whose paths lead to functions
    Domain {
        #[command(subcommand)]
        command: DomainCommand,
    },
    /// Show or set how an alias shares its calls between two versions
    Traffic(Traffic),
    /// Point an alias back to the version before
    Rollback(Rollback),
    /// Container images that come without a registry
    Image {
        /// What to do
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Layers: packages that functions share
    Layer {
        #[command(subcommand)]
        command: LayerCommand,
    },
    /// Instances set aside for a function
    Concurrency {
        #[command(subcommand)]
        command: ConcurrencyCommand,
    },
    /// Instances that are started before the first call and kept ready
    Provision {
        #[command(subcommand)]
        command: ProvisionCommand,
    },
    /// The same in the newer form, which can also keep a function to these instances
    Scaling {
        #[command(subcommand)]
        command: ScalingCommand,
    },
    /// Sessions: calls that meet one instance
    Session {
        #[command(subcommand)]
        command: SessionCommand,
    },
    /// What a function printed
    Logs(Logs),
    /// One line for each call of a function: where it ran, how long, what it cost
    Records(Records),
    /// Runtimes
    Runtime {
        #[command(subcommand)]
        command: RuntimeCommand,
    },
    /// Instances
    Instance {
        #[command(subcommand)]
        command: InstanceCommand,
    },
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// The unprivileged half of the platform; started by `up`
    #[command(hide = true)]
    Server(Server),
    /// Makes the processes of cells; started by `up`
    #[command(hide = true)]
    Spawner,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Address and port to listen on; port 0 lets the kernel choose
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7900")]
    pub(crate) listen: SocketAddr,
    /// Address and port to speak TLS on, for custom domains; port 0 lets the kernel choose [default: none]
    #[arg(long, value_name = "ADDR")]
    pub(crate) https: Option<SocketAddr>,
    /// Function URLs are http://PREFIX.fn.DOMAIN
    #[arg(long, default_value = "localhost")]
    pub(crate) domain: String,
    /// The region the platform calls itself
    #[arg(long, default_value = "cn-hangzhou")]
    pub(crate) region: String,
    /// Let no function reach the internet, whatever its internetAccess says
    #[arg(long)]
    pub(crate) no_egress: bool,
    /// Let key sets of tokens and container images be fetched from addresses inside (loopback, private networks), and without TLS
    #[arg(long)]
    pub(crate) fetch_inside: bool,
    /// A Python, Node.js, Java or PHP to use rather than those found in the usual places: the program, or the directory it is
    /// installed in, which functions see read-only; may be given more than once
    #[arg(long = "interpreter", value_name = "PATH")]
    pub(crate) interpreters: Vec<PathBuf>,
    /// Show functions all of /proc that concerns no process: the machine's memory, load, processors and kernel settings
    #[arg(long)]
    pub(crate) full_proc: bool,
    #[command(flatten)]
    pub(crate) capacity: Capacity,
}

/// How much the platform takes on. The supervisor passes it on to the server.
#[derive(Debug, Args)]
pub(crate) struct Capacity {
    /// Most instances of one account at a time [default: 300]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) instances_per_account: Option<usize>,
    /// Most instances of one function at a time [default: as many as its account has]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) instances_per_function: Option<usize>,
    /// Most calls that wait for an instance; one account may have half of them waiting, one function a quarter [default: 20000]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) waiting_calls: Option<usize>,
    /// How long a call may wait for an instance, apart from how long it may run [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) queue_wait: Option<u64>,
    /// Most sandboxes of one kind made ahead of need; 0 makes each when a call wants it [default: by recent demand]
    #[arg(long, value_name = "N")]
    pub(crate) stock: Option<usize>,
    /// Memory for all instances together, in MB [default: three quarters of the machine's]
    #[arg(long, value_name = "MB", value_parser = clap::value_parser!(u64).range(64..))]
    pub(crate) memory_mb: Option<u64>,
    /// How long the load must have been lower before fewer instances are kept ready for it [default: 60]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) scale_in_after: Option<u64>,
    /// What instances do between calls
    #[arg(long, value_enum, default_value_t = Idle::Freeze)]
    pub(crate) idle: Idle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Idle {
    /// Stand still soon after a call, until the next one; as in Function Compute
    Freeze,
    /// Run on, threads and all; what they use counts for the next call
    Run,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "write a whole number of at least 1".to_owned())
}

#[derive(Debug, Args)]
pub(crate) struct Server {
    /// Function URLs are http://PREFIX.fn.DOMAIN
    #[arg(long)]
    pub(crate) domain: String,
    /// The port clients reach the listener at
    #[arg(long)]
    pub(crate) port: u16,
    /// The last listener speaks TLS
    #[arg(long)]
    pub(crate) https: bool,
    /// Key sets of tokens and images may be fetched from inside
    #[arg(long)]
    pub(crate) fetch_inside: bool,
    /// A further name of the listener
    #[arg(long = "name")]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) capacity: Capacity,
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// A folder with code, a zip file, or a project: a folder with a dunlin.toml or an s.yaml, or such a file
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// A project's file: dunlin.toml, or an s.yaml of Serverless Devs
    #[arg(short, long, value_name = "FILE", conflicts_with = "path")]
    pub(crate) file: Option<PathBuf>,
    /// The function's name [default: the folder's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// For example python3.10, nodejs20 or custom.debian12 [default: by what is in the folder]
    #[arg(long)]
    pub(crate) runtime: Option<String>,
    /// file.function [default: index.handler]
    #[arg(long)]
    pub(crate) handler: Option<String>,
    /// Free text
    #[arg(long)]
    pub(crate) description: Option<String>,
    /// MB of memory, a multiple of 64
    #[arg(long, value_name = "MB")]
    pub(crate) memory: Option<i64>,
    /// Seconds one call may run
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<i64>,
    /// vCPUs, in steps of 0.05
    #[arg(long)]
    pub(crate) cpu: Option<f64>,
    /// Calls at a time in one instance, 1 to 200
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<i64>,
    /// An environment variable; may be given more than once. Together they replace the ones before
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) environment: Vec<(String, String)>,
    /// The resource name of a layer version; may be given more than once, and of two that hold the same path the first counts.
    /// Together they replace the ones before
    #[arg(long = "layer", value_name = "ARN")]
    pub(crate) layers: Vec<String>,
    /// Who may call the function's URL [default for a new function: function]
    #[arg(long, value_name = "WHO", value_enum, num_args = 0..=1, default_missing_value = "anonymous", conflicts_with = "no_http")]
    pub(crate) http: Option<Http>,
    /// Do not give the function a URL
    #[arg(long)]
    pub(crate) no_http: bool,
    /// Whether instances reach public addresses
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub(crate) internet: Option<bool>,
    /// What starts a custom runtime's server, in words separated by spaces [default: /code/bootstrap]
    #[arg(long)]
    pub(crate) command: Option<String>,
    /// Further words for --command; may be given more than once
    #[arg(long, allow_hyphen_values = true, value_name = "WORD")]
    pub(crate) args: Vec<String>,
    /// Where a custom runtime's server listens [default: 9000]
    #[arg(long)]
    pub(crate) port: Option<u16>,
}

impl Deploy {
    /// The first option given that says what a single function is.
    pub(crate) fn says_what_a_function_is(&self) -> Option<&'static str> {
        let given = [
            (self.name.is_some(), "--name"),
            (self.runtime.is_some(), "--runtime"),
            (self.handler.is_some(), "--handler"),
            (self.description.is_some(), "--description"),
            (self.memory.is_some(), "--memory"),
            (self.timeout.is_some(), "--timeout"),
            (self.cpu.is_some(), "--cpu"),
            (self.concurrency.is_some(), "--concurrency"),
            (!self.environment.is_empty(), "--env"),
            (!self.layers.is_empty(), "--layer"),
            (self.http.is_some(), "--http"),
            (self.no_http, "--no-http"),
            (self.internet.is_some(), "--internet"),
            (self.command.is_some(), "--command"),
            (!self.args.is_empty(), "--args"),
            (self.port.is_some(), "--port"),
        ];
        given.iter().find_map(|(given, name)| given.then_some(*name))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The project's file [default: dunlin.toml, s.yaml or s.yml, whichever is here]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Show the values of environment variables and other secrets
    #[arg(long)]
    pub(crate) show_values: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// The project's file [default: dunlin.toml, s.yaml or s.yml, whichever is here]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Http {
    /// Everybody
    Anonymous,
    /// Callers who sign for the account
    Function,
}

impl Http {
    /// As the wire spells it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::Function => "function",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Invoke {
    /// The function
    pub(crate) name: String,
    /// The event: text, @FILE, or - for standard input
    #[arg(short = 'd', long, value_name = "BODY")]
    pub(crate) body: Option<String>,
    /// Which version or alias
    #[arg(long)]
    pub(crate) qualifier: Option<String>,
    /// Show the end of the call's log on standard error
    #[arg(long)]
    pub(crate) tail: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FunctionCommand {
    /// List functions
    Ls {
        /// Only names that begin with this
        #[arg(long)]
        prefix: Option<String>,
    },
    /// Show one function
    Get {
        /// The function
        name: String,
    },
    /// Remove a function and its triggers
    Rm {
        /// The function
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RuntimeCommand {
    /// List every runtime and which interpreter serves it
    Ls,
}

#[derive(Debug, Subcommand)]
pub(crate) enum VersionCommand {
    /// List a function's versions, newest first
    Ls {
        /// The function
        name: String,
    },
    /// Show what a function was when a version was published
    Get {
        /// The function
        name: String,
        /// The version's number
        version: String,
    },
    /// Publish the function as it is now and print the version's number
    Publish {
        /// The function
        name: String,
        /// Free text
        #[arg(long)]
        description: Option<String>,
    },
    /// Remove a version
    Rm {
        /// The function
        name: String,
        /// The version's number
        version: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AliasCommand {
    /// List a function's aliases
    Ls {
        /// The function
        name: String,
    },
    /// Show one alias
    Get {
        /// The function
        name: String,
        /// The alias
        alias: String,
    },
    /// Point an alias to one version, and create it if need be
    Set {
        /// The function
        name: String,
        /// The alias
        alias: String,
        /// The version's number
        version: String,
        /// Free text
        #[arg(long)]
        description: Option<String>,
    },
    /// Remove an alias
    Rm {
        /// The function
        name: String,
        /// The alias
        alias: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LayerCommand {
    /// List layers, or the versions of one
    Ls {
        /// The layer
        name: Option<String>,
    },
    /// Show one version of a layer
    Get {
        /// The layer
        name: String,
        /// The version's number
        version: String,
    },
    /// Make a new version of a layer from a folder or a zip file and print its resource name
    Publish {
        /// The layer
        name: String,
        /// A folder, or a zip file
        path: PathBuf,
        /// Free text
        #[arg(long)]
        description: Option<String>,
        /// A runtime it is meant for; may be given more than once
        #[arg(long = "runtime", value_name = "RUNTIME")]
        runtimes: Vec<String>,
    },
    /// Let functions of other accounts use a layer, or not any more
    Share {
        /// The layer
        name: String,
        /// Keep it to this account
        #[arg(long)]
        private: bool,
    },
    /// Remove a version of a layer
    Rm {
        /// The layer
        name: String,
        /// The version's number
        version: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List the images of this account
    Ls,
    /// Bring an image from a tar file or a folder, and print what functions call it
    Push {
        /// NAME or NAME:TAG
        name: String,
        /// A tar file (an OCI layout, or from 'docker save'), or a folder with an OCI layout
        path: PathBuf,
    },
    /// Remove an image
    Rm {
        /// NAME or NAME:TAG
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum DomainCommand {
    /// List custom domains
    Ls {
        /// Only names that begin with this
        #[arg(long)]
        prefix: Option<String>,
    },
    /// Show one custom domain
    Get {
        /// Its name
        name: String,
    },
    /// Change what is given of a custom domain, and create it if need be
    Set(DomainSet),
    /// Remove a custom domain
    Rm {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DomainSet {
    /// The host, for example www.example.com
    pub(crate) name: String,
    /// Which function answers for which path, for example '/api/*=api:prod'; may be given more than once. Together they
    /// replace the ones before
    #[arg(long = "route", value_name = "PATH=FUNCTION[:QUALIFIER]", value_parser = name_and_value)]
    pub(crate) routes: Vec<(String, String)>,
    /// A JSON list of routes with all their members: methods and rewriteConfig as well
    #[arg(long, value_name = "FILE")]
    pub(crate) route_file: Option<PathBuf>,
    /// HTTP, HTTPS or HTTP,HTTPS [default for a new domain: HTTP, with a certificate both]
    #[arg(long)]
    pub(crate) protocol: Option<String>,
    /// The certificate with those that signed it, as PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// The certificate's private key, as PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// The oldest version of TLS
    #[arg(long, value_name = "VERSION", value_parser = ["1.2", "1.3"])]
    pub(crate) min_tls: Option<String>,
    /// Who may call [default for a new domain: anonymous]
    #[arg(long, value_name = "WHO", value_enum)]
    pub(crate) callers: Option<Http>,
    /// Let in who brings a token; the file holds the JSON with jwks, tokenLookup and claimPassBy
    #[arg(long, value_name = "FILE", conflicts_with = "callers")]
    pub(crate) jwt: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConcurrencyCommand {
    /// List the functions that have instances reserved
    Ls,
    /// Show how many instances are reserved for a function
    Get {
        /// The function
        name: String,
    },
    /// Reserve instances for a function, which then may not have more; 0 switches its calls off
    Set {
        /// The function
        name: String,
        /// How many
        instances: u64,
    },
    /// Give a function's reservation up
    Rm {
        /// The function
        name: String,
    },
}

/// Which function, and which part of it.
#[derive(Debug, Args)]
pub(crate) struct Qualified {
    /// The function
    pub(crate) name: String,
    /// A version or an alias
    #[arg(long, value_name = "NAME", default_value = "LATEST")]
    pub(crate) qualifier: String,
}

/// Which session.
#[derive(Debug, Args)]
pub(crate) struct OneSession {
    /// The function
    pub(crate) name: String,
    /// The session's id
    pub(crate) session: String,
    /// The version or alias that its calls name
    #[arg(long, value_name = "NAME", default_value = "LATEST")]
    pub(crate) qualifier: String,
}

/// How long a session lives, and what becomes of it then.
#[derive(Debug, Args)]
pub(crate) struct SessionTerms {
    /// How long it lives
    #[arg(long, value_name = "SECONDS")]
    pub(crate) ttl: Option<u64>,
    /// How long it lives without a call; 0 leaves it to --ttl
    #[arg(long, value_name = "SECONDS")]
    pub(crate) idle: Option<u64>,
    /// Whether its id is refused once it has expired
    #[arg(long, value_name = "BOOL")]
    pub(crate) single_use: Option<bool>,
    /// Whether it is paused when it had no call for --idle, instead of ending
    #[arg(long, value_name = "BOOL")]
    pub(crate) auto_pause: Option<bool>,
    /// Whether a call resumes it
    #[arg(long, value_name = "BOOL")]
    pub(crate) auto_resume: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List a function's sessions, those included that have expired lately
    Ls {
        /// The function
        name: String,
        /// Only those of this version or alias
        #[arg(long, value_name = "NAME")]
        qualifier: Option<String>,
        /// Only those that are Active, Paused or Expired
        #[arg(long, value_name = "STATUS")]
        status: Option<String>,
    },
    /// Show a session
    Get(OneSession),
    /// Make a session before its first call, with an instance
    Create {
        /// The function
        name: String,
        /// Its id; the platform makes one when it is left out
        session: Option<String>,
        /// The version or alias that its calls will name
        #[arg(long, value_name = "NAME", default_value = "LATEST")]
        qualifier: String,
        #[command(flatten)]
        terms: SessionTerms,
    },
    /// Change how long a session lives
    Set {
        #[command(flatten)]
        of: OneSession,
        #[command(flatten)]
        terms: SessionTerms,
    },
    /// End a session
    Rm {
        #[command(flatten)]
        of: OneSession,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Let a session's instance stand still and refuse its calls
    Pause(OneSession),
    /// Let a paused session go on
    Resume(OneSession),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProvisionCommand {
    /// List what is kept ready
    Ls {
        /// Only of this function
        name: Option<String>,
    },
    /// Show what is kept ready, how much of it is there, and why not all
    Get(Qualified),
    /// Keep so many instances ready, in place of what was said before
    Set {
        #[command(flatten)]
        of: Qualified,
        /// How many, while no schedule and no policy says otherwise
        instances: u64,
        /// Let them stand still between calls
        #[arg(long)]
        freeze: bool,
        /// Schedules and policies, as JSON with the API's members, or @FILE
        #[arg(long, value_name = "JSON")]
        config: Option<String>,
    },
    /// Keep no instances ready any more
    Rm(Qualified),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ScalingCommand {
    /// List what is kept ready
    Ls {
        /// Only of this function
        name: Option<String>,
    },
    /// Show what is kept ready, how much of it is there, and why not all
    Get(Qualified),
    /// Keep so many instances ready, in place of what was said before
    Set {
        #[command(flatten)]
        of: Qualified,
        /// How many, while no schedule and no policy says otherwise
        instances: u64,
        /// Refuse calls that these instances cannot take
        #[arg(long)]
        no_on_demand: bool,
        /// Schedules and policies, as JSON with the API's members, or @FILE
        #[arg(long, value_name = "JSON")]
        config: Option<String>,
    },
    /// Keep no instances ready any more
    Rm(Qualified),
}

#[derive(Debug, Args)]
pub(crate) struct Traffic {
    /// The function
    pub(crate) name: String,
    /// One or two versions with their shares in percent, for example v3=90 v4=10; none shows the shares there are
    #[arg(value_name = "VERSION=PERCENT", value_parser = version_and_share)]
    pub(crate) shares: Vec<(String, f64)>,
    /// The alias whose calls are shared; created if need be
    #[arg(long, default_value = "live")]
    pub(crate) alias: String,
}

fn version_and_share(text: &str) -> Result<(String, f64), String> {
    let (version, share) = text.split_once('=').ok_or("write VERSION=PERCENT")?;
    let share = share.trim_end_matches('%').parse::<f64>().ok().filter(|share| (0.0..=100.0).contains(share));
    Ok((version.to_owned(), share.ok_or("write a share between 0 and 100")?))
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The function
    pub(crate) name: String,
    /// The alias to point back
    #[arg(long, default_value = "live")]
    pub(crate) alias: String,
    /// The version to go back to [default: the newest before the one the alias points to]
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum InstanceCommand {
    /// List a function's instances
    Ls {
        /// The function
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The function
    pub(crate) name: String,
    /// How far back: 30s, 10m, 2h, 1d, or a time like 2026-01-31T08:00:00Z [default: everything that is kept]
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Only one call's lines
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// Only lines that contain this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) grep: Option<String>,
    /// Go on as lines come
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Records {
    /// The function
    pub(crate) name: String,
    /// How far back, as for logs
    #[arg(long, value_name = "WHEN")]
    pub(crate) since: Option<String>,
    /// Only one call's record
    #[arg(long, value_name = "ID")]
    pub(crate) request_id: Option<String>,
    /// Most records, newest first
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn no_command_takes_a_shared_name_for_its_own() {
        let command = <Arguments as clap::CommandFactory>::command();
        let shared: Vec<_> = command.get_arguments().map(clap::Arg::get_id).collect();
        let mut below: Vec<_> = command.get_subcommands().collect();
        while let Some(command) = below.pop() {
            below.extend(command.get_subcommands());
            for argument in command.get_arguments() {
                assert!(!shared.contains(&argument.get_id()), "{} of {}", argument.get_id(), command.get_name());
            }
        }
    }
}
