//! The unprivileged process: every room, plugged together.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dunlin_api::Api;
use dunlin_auth::Verifier;
use dunlin_blobs::LocalBlobs;
use dunlin_control::Control;
use dunlin_gateway::{Doors, Listener};
use dunlin_invoke::{Invoker, OutcomeSink};
use dunlin_meter::Ledger;
use dunlin_model::{Digest, Limits};
use dunlin_outbound::Outbound;
use dunlin_pool::Pool;
use dunlin_sandbox::{BootFacts, Client, Credentials, Sandboxes};
use dunlin_scaling::Scaler;
use dunlin_store::{AccessKey, Sqlite, Store};
use dunlin_telemetry::{Logs, LogsConfig, Metrics};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::adapters::{FunctionOutput, Outcomes, PoolEvents, Status};
use crate::{Capacity, adapters};

/// Why the server could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// What the supervisor hands over was not there or not readable: the program was started by hand.
    #[error("'dunlin server' is started by 'dunlin up' only")]
    Handover {
        /// What was wrong.
        source: std::io::Error,
    },
    /// Something under the state directory cannot be used.
    #[error("cannot open {what} in {}", path.display())]
    State {
        /// Which part.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A thread or a descriptor could not be had.
    #[error("the machine refused")]
    Machine {
        /// Why.
        source: std::io::Error,
    },
    /// A part of the platform stopped although nobody asked it to.
    #[error("{0} stopped unexpectedly")]
    Stopped(&'static str),
}

/// How long calls in flight may run on after the door was closed.
const GRACE: Duration = Duration::from_secs(30);

/// What the operator can say to the server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Function URLs are `{prefix}.fn.{domain}`.
    pub domain: String,
    /// Further names the listener is reached under.
    pub names: Vec<String>,
    /// The port clients reach the first listener at.
    pub port: u16,
    /// Whether the last listener speaks TLS.
    pub https: bool,
    /// Whether key sets of tokens may be fetched from inside.
    pub fetch_inside: bool,
    /// How much to take on.
    pub capacity: Capacity,
}

/// Runs the unprivileged process: takes what the supervisor left in its descriptors and serves until SIGTERM.
///
/// # Errors
/// When a part cannot be opened, or one stops although nobody asked it to.
pub fn server_main(config: ServerConfig) -> Result<(), ServerError> {
    crate::start_log();
    let inherited = dunlin_sandbox::inherited().map_err(|source| ServerError::Handover { source })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("server")
        .build()
        .map_err(|source| ServerError::Machine { source })?;
    let outcome = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|source| ServerError::Machine { source })?;
        let stop = async move {
            terminate.recv().await;
        };
        let sandboxes = Client::new(inherited.supervisor).map_err(|source| ServerError::Machine { source })?;
        let listeners = inherited
            .listeners
            .into_iter()
            .map(|listener| {
                listener.set_nonblocking(true)?;
                Ok(Listener { socket: TcpListener::from_std(listener)?, is_tls: false })
            })
            .collect::<std::io::Result<Vec<_>>>();
        let mut listeners = listeners.map_err(|source| ServerError::Machine { source })?;
        if let Some(last) = listeners.last_mut().filter(|_| config.https) {
            last.is_tls = true;
        }
        let mut platform = Platform::build(&inherited.facts, &config, Arc::new(sandboxes)).await?;
        if let Some(sockets) = inherited.dns {
            let stopped = until(platform.stopping.subscribe());
            platform.tasks.spawn(named("the name resolver", async move {
                tokio::select! {
                    () = stopped => {}
                    ended = dunlin_sandbox::net::dns_stub::serve(sockets) => {
                        if let Err(error) = ended {
                            tracing::error!(%error, "names are not resolved any more");
                        }
                    }
                }
            }));
        }
        platform.serve(listeners, config, stop).await
    });
    // Nothing of value is left in blocking threads: the store and the logs were closed in order.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Everything that runs, by name.
struct Platform {
    limits: Limits,
    store: Arc<Sqlite>,
    pool: Pool,
    invoker: Invoker,
    verifier: Verifier,
    ledger: Ledger,
    logs: Logs,
    api: Api,
    status: Arc<Status>,
    tasks: JoinSet<&'static str>,
    stopping: watch::Sender<bool>,
}

impl Platform {
    async fn build(facts: &BootFacts, config: &ServerConfig, sandboxes: Arc<dyn Sandboxes>) -> Result<Self, ServerError> {
        let state = |what, path: &Path| {
            let path = path.to_owned();
            move |source: Box<dyn std::error::Error + Send + Sync>| ServerError::State { what, path, source }
        };
        let folder = &facts.state_dir;
        let limits = config.capacity.limits();
        let database = folder.join("dunlin.db");
        let sqlite = Sqlite::open(&database).map_err(|error| state("the database", &database)(error.into()))?;
        let sqlite = Arc::new(sqlite);
        let store: Arc<dyn Store> = Arc::clone(&sqlite) as Arc<dyn Store>;
        store.put_access_key(&root_key(&facts.root)).await.map_err(|error| state("the database", &database)(error.into()))?;
        let blob_folder = folder.join("blobs");
        let blobs = LocalBlobs::open(&blob_folder).map_err(|error| state("the packages", &blob_folder)(error.into()))?;
        let log_folder = folder.join("logs");
        let logs =
            Logs::start(LogsConfig::new(log_folder.clone())).map_err(|error| state("the logs", &log_folder)(error.into()))?;
        let metrics = Metrics::new();
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();

        let (ledger, append) = Ledger::start(Arc::clone(&store), dunlin_meter::Config::default());
        tasks.spawn(named("the ledger", append));
        {
            let (store, stopped) = (Arc::clone(&sqlite), until(stopped.clone()));
            tasks.spawn(named("the database", async move {
                tokio::select! {
                    () = stopped => {}
                    error = store.failed() => tracing::error!(%error, "the database takes no more writes; the server has to start anew"),
                }
            }));
        }
        let verifier = Verifier::open(Arc::clone(&store), dunlin_auth::Config::default(), dunlin_auth::system_clock())
            .await
            .map_err(|error| state("the database", &database)(error.into()))?;
        {
            let verifier = verifier.clone();
            let stopped = until(stopped.clone());
            tasks.spawn(named("the nonce writer", async move { verifier.run(stopped).await }));
        }

        let pool_config = dunlin_pool::Config {
            interpreters: facts.interpreters.clone(),
            ..config.capacity.pool(facts.root.region.clone(), &limits)
        };
        let output = Arc::new(FunctionOutput(logs.clone()));
        let pool = Pool::new(pool_config, Arc::clone(&sandboxes), output, Arc::new(PoolEvents));
        for (_, function) in store.view().functions() {
            pool.expect(&function.value.config);
        }
        let outcomes: Arc<dyn OutcomeSink> = Arc::new(Outcomes { ledger: ledger.clone(), metrics: metrics.clone() });
        let invoke_config = config.capacity.invoke(&limits);
        let invoker = Invoker::new(invoke_config, Arc::clone(&store), pool.clone(), outcomes);

        let scaler = Scaler::new(
            config.capacity.scaling(),
            Arc::clone(&store),
            invoker.clone(),
            pool.clone(),
            dunlin_auth::system_clock(),
            limits.instances_per_account_max,
        );
        {
            let scaler = scaler.clone();
            let stopped = until(stopped.clone());
            tasks.spawn(named("the scaler", async move { scaler.run(stopped).await }));
        }

        let seal_key = seal_key(&facts.root.access_key_secret);
        let control_config = dunlin_control::Config {
            limits: limits.clone(),
            interpreters: facts.interpreters.clone(),
            reserved_domains: std::iter::once(&config.domain).chain(&config.names).cloned().collect(),
            ..dunlin_control::Config::new(facts.root.region.clone(), seal_key)
        };
        let control = Control::new(
            control_config,
            dunlin_control::Parts {
                store: Arc::clone(&store),
                blobs: Arc::new(blobs),
                sandboxes,
                instances: Arc::new(pool.clone()),
                scaling: Arc::new(scaler),
                sessions: Arc::new(dunlin_control::PoolSessions { invoker: invoker.clone(), pool: pool.clone() }),
                outbound: Outbound::new(config.fetch_inside),
                clock: dunlin_auth::system_clock(),
            },
        );
        {
            let control = control.clone();
            let stopped = until(stopped);
            tasks.spawn(named("the reconciler", async move { control.run(stopped).await }));
        }
        let api_config = dunlin_api::Config { domain: config.domain.clone(), port: config.port, ..dunlin_api::Config::default() };
        let api = Api::new(
            api_config,
            dunlin_api::Parts {
                verifier: verifier.clone(),
                control,
                calls: Arc::new(adapters::Recorded { invoker: invoker.clone(), ledger: ledger.clone() }),
                store: Arc::clone(&store),
                logs: logs.clone(),
            },
        );
        let status = Arc::new(Status {
            ready: AtomicBool::new(false),
            metrics,
            pool: pool.clone(),
            store: Arc::clone(&sqlite),
            ledger: ledger.clone(),
            logs: logs.clone(),
        });
        Ok(Self { limits, store: sqlite, pool, invoker, verifier, ledger, logs, api, status, tasks, stopping })
    }

    async fn serve(
        mut self,
        listeners: Vec<Listener>,
        config: ServerConfig,
        stop: impl Future<Output = ()>,
    ) -> Result<(), ServerError> {
        let doors = Doors {
            api: Arc::new(adapters::Control(self.api.clone())),
            calls: Arc::new(adapters::Recorded { invoker: self.invoker.clone(), ledger: self.ledger.clone() }),
            verifier: self.verifier.clone(),
            store: Arc::clone(&self.store) as Arc<dyn Store>,
            status: Arc::clone(&self.status) as Arc<dyn dunlin_gateway::Status>,
            limits: self.limits.clone(),
            outbound: Outbound::new(config.fetch_inside),
            domain: config.domain,
            names: config.names,
        };
        let door = dunlin_gateway::Config { grace: GRACE, ..dunlin_gateway::Config::default() };
        self.status.ready.store(true, Ordering::Release);
        tracing::info!("ready");
        let failure = {
            let mut tasks = std::mem::take(&mut self.tasks);
            let failure = std::sync::Mutex::new(None);
            let status = &self.status;
            let stop = async {
                tokio::select! {
                    () = stop => {}
                    ended = tasks.join_next() => {
                        let name = ended.and_then(Result::ok).unwrap_or("a task");
                        *failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(name);
                    }
                }
                status.ready.store(false, Ordering::Release);
            };
            let closed = dunlin_gateway::serve(listeners, doors, door, stop).await;
            if closed.interrupted > 0 {
                tracing::warn!(calls = closed.interrupted, "calls were still running when the grace period ended");
            }
            self.tasks = tasks;
            failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
        };
        self.stop().await;
        match failure {
            Some(name) => Err(ServerError::Stopped(name)),
            None => Ok(()),
        }
    }

    /// From the desk inwards. Records and logs go last, because every step before them writes some.
    async fn stop(mut self) {
        self.invoker.drain().await;
        self.pool.drain().await;
        let _ = self.stopping.send(true);
        self.ledger.close();
        tokio::select! {
            biased;
            () = async { while self.tasks.join_next().await.is_some() {} } => {}
            // A database that takes no more writes takes no more records: whoever waits for it waits in vain.
            _ = self.store.failed() => {
                tracing::error!(records = self.ledger.status().backlog, "records of calls are lost with the database");
                self.tasks.shutdown().await;
            }
        }
        self.logs.flush().await;
        self.store.close().await;
    }
}

async fn named(name: &'static str, task: impl Future<Output = ()>) -> &'static str {
    task.await;
    name
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

fn root_key(credentials: &Credentials) -> AccessKey {
    AccessKey {
        id: credentials.access_key_id.clone(),
        account: credentials.account_id.clone(),
        secret: credentials.access_key_secret.clone(),
    }
}

/// Links and page tokens stay good across restarts and die with the root key.
fn seal_key(root_secret: &str) -> [u8; 32] {
    Digest::of(format!("dunlin links and page tokens\0{root_secret}").as_bytes()).0
}
