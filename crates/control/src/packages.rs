//! Code packages: a blob and an unpacked tree under one digest, from the first byte to the last use.
//!
//! Whoever brings a package in holds it until the function that uses it is in the store; whoever removes one holds it
//! alone. So a package is never removed between being unpacked and being stored, in this process. Packages that a crash
//! orphaned, or whose function changed, are found by [`Packages::reconcile`] and removed after the grace period.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use dunlin_blobs::{BlobError, Blobs, Upload};
use dunlin_model::{CodePackage, Crc64, Digest, FunctionConfig, ImageConfig, Language};
use dunlin_sandbox::{Prepare, Sandboxes, UnpackError, UnpackLimits};
use dunlin_store::Store;
use jiff::Timestamp;
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use crate::control::{Clock, Config};
use crate::error::Error;

pub(crate) struct Packages {
    store: Arc<dyn Store>,
    blobs: Arc<dyn Blobs>,
    sandboxes: Arc<dyn Sandboxes>,
    clock: Clock,
    limits: UnpackLimits,
    image_limits: UnpackLimits,
    grace_s: i64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Who is working on a digest.
    locks: HashMap<Digest, Weak<RwLock<()>>>,
    /// Since when no function has used it, as far as is known.
    unused: HashMap<Digest, Timestamp>,
}

/// A package that is stored and unpacked, and stays so while this is held.
pub(crate) struct Held {
    pub(crate) package: CodePackage,
    _guard: OwnedRwLockReadGuard<()>,
}

impl Packages {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        blobs: Arc<dyn Blobs>,
        sandboxes: Arc<dyn Sandboxes>,
        clock: Clock,
        config: &Config,
    ) -> Self {
        let limits = UnpackLimits { bytes: config.limits.unpacked_bytes_max, entries: config.limits.unpacked_entries_max };
        let grace_s = i64::try_from(config.package_grace.as_secs()).unwrap_or(i64::MAX / 2);
        let image_limits = UnpackLimits { bytes: config.limits.image_bytes_max, entries: config.limits.image_entries_max };
        Self { store, blobs, sandboxes, clock, limits, image_limits, grace_s, state: Mutex::default() }
    }

    /// Stores and unpacks `zip`, the code of a function of this configuration. When it is refused, nothing of it is left.
    pub(crate) async fn admit(&self, zip: Bytes, config: &FunctionConfig) -> Result<Held, Error> {
        let program = (config.runtime.language() == Language::Wasm).then_some(&*config.handler);
        self.admit_package(zip, program).await
    }

    /// Stores and unpacks `zip`, a layer. When it is refused, nothing of it is left.
    pub(crate) async fn admit_layer(&self, zip: Bytes) -> Result<Held, Error> {
        self.admit_package(zip, None).await
    }

    /// Begins a package whose bytes come in chunks. Until it is admitted, it is one that nobody uses.
    pub(crate) async fn upload(&self) -> Result<Upload, Error> {
        self.blobs.upload().await.map_err(|error| Error::platform("store the image", error))
    }

    /// Removes a package that was stored and is not to be admitted.
    pub(crate) async fn forget(&self, digest: Digest) {
        let _guard = self.lock(digest).write_owned().await;
        self.remove_if_new(digest).await;
    }

    /// Unpacks an image whose archive is stored. Answers what it says, and the bytes of its files. When it is refused, by the
    /// name of `field`, nothing of it is left.
    pub(crate) async fn admit_image(&self, digest: Digest, size: u64, field: &str) -> Result<(Held, ImageConfig, u64), Error> {
        let guard = self.lock(digest).write_owned().await;
        match self.unpack_image(digest, field).await {
            Ok((config, bytes)) => {
                // Nobody compares an image's checksum.
                let package = CodePackage { digest, checksum: Crc64(0), size };
                Ok((Held { package, _guard: guard.downgrade() }, config, bytes))
            }
            Err(error) => {
                self.remove_if_new(digest).await;
                Err(error)
            }
        }
    }

    async fn unpack_image(&self, digest: Digest, field: &str) -> Result<(ImageConfig, u64), Error> {
        let file = self.blobs.open(digest).await.map_err(|error| Error::platform("open the image", error))?;
        match self.sandboxes.unpack(digest, file.into(), self.image_limits, Prepare::Image).await {
            Ok(report) => Ok((crate::images::read_config(report.prepared)?, report.bytes)),
            Err(UnpackError::Died(ended)) if ended.out_of_memory => {
                Err(Error::invalid(field, "is refused: unpacking it takes too much memory"))
            }
            Err(error) => Err(not_unpacked(error, digest, field, "unpack the image")),
        }
    }

    /// Holds a package that is there. `None` when it is not any more.
    pub(crate) async fn hold(&self, package: &CodePackage) -> Result<Option<Held>, Error> {
        let guard = self.lock(package.digest).read_owned().await;
        if !self.used().contains(&package.digest) && !self.state().unused.contains_key(&package.digest) {
            return Ok(None);
        }
        Ok(Some(Held { package: package.clone(), _guard: guard }))
    }

    /// `program`: the handler of a WebAssembly function, whose programs are compiled.
    async fn admit_package(&self, zip: Bytes, program: Option<&str>) -> Result<Held, Error> {
        let (digest, checksum, zip) = tokio::task::spawn_blocking(move || (Digest::of(&zip), Crc64::of(&zip), zip))
            .await
            .map_err(|error| Error::platform("hash the code", error))?;
        let size = zip.len() as u64;
        let guard = self.lock(digest).write_owned().await;
        match self.unpack(digest, zip, program).await {
            Ok(()) => Ok(Held { package: CodePackage { digest, checksum, size }, _guard: guard.downgrade() }),
            Err(error) => {
                self.remove_if_new(digest).await;
                Err(error)
            }
        }
    }

    async fn unpack(&self, digest: Digest, zip: Bytes, program: Option<&str>) -> Result<(), Error> {
        let prepare = if program.is_some() { Prepare::Wasm } else { Prepare::Nothing };
        self.blobs.put(zip).await.map_err(|error| Error::platform("store the code", error))?;
        let file = self.blobs.open(digest).await.map_err(|error| Error::platform("open the code", error))?;
        match self.sandboxes.unpack(digest, file.into(), self.limits, prepare).await {
            Ok(report) => {
                tracing::debug!(package = %digest, report.bytes, report.entries, "a package was unpacked");
                match (program, report.prepared) {
                    (Some(handler), Some(programs)) => check_program(handler, &programs),
                    _ => Ok(()),
                }
            }
            Err(UnpackError::Died(ended)) if ended.out_of_memory && prepare == Prepare::Wasm => Err(Error::invalid(
                "code.zipFile",
                "is refused: compiling its WebAssembly takes too much memory; make it smaller",
            )),
            Err(UnpackError::TimedOut) if prepare == Prepare::Wasm => {
                Err(Error::invalid("code.zipFile", "is refused: unpacking it and compiling its WebAssembly takes too long"))
            }
            Err(error) => Err(not_unpacked(error, digest, "code.zipFile", "unpack the code")),
        }
    }

    /// Gives up a package that was admitted for a write that then failed.
    pub(crate) async fn abandon(&self, held: Held) {
        let digest = held.package.digest;
        drop(held);
        let _guard = self.lock(digest).write_owned().await;
        self.remove_if_new(digest).await;
    }

    /// A function that used this package does not any more.
    pub(crate) fn release(&self, digest: Digest) {
        let now = (self.clock)();
        self.state().unused.entry(digest).or_insert(now);
    }

    /// The zip, verified. `None` when it is gone.
    pub(crate) async fn read(&self, digest: Digest) -> Result<Option<Bytes>, Error> {
        let _guard = self.lock(digest).read_owned().await;
        match self.blobs.read(digest).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(BlobError::NotFound { .. }) => Ok(None),
            Err(error) => Err(Error::platform("read the code", error)),
        }
    }

    /// Removes what no function has used for the grace period.
    pub(crate) async fn reconcile(&self) -> Result<usize, Error> {
        let stored = self.blobs.list().await.map_err(|error| Error::platform("list the code packages", error))?;
        let now = (self.clock)();
        let used = self.used();
        let due: Vec<Digest> = {
            let mut state = self.state();
            state.locks.retain(|_, lock| lock.strong_count() > 0);
            state.unused.retain(|digest, _| !used.contains(digest));
            stored
                .into_iter()
                .map(|blob| blob.digest)
                .filter(|digest| !used.contains(digest))
                .filter(|digest| {
                    let since = *state.unused.entry(*digest).or_insert(now);
                    now.as_second().saturating_sub(since.as_second()) >= self.grace_s
                })
                .collect()
        };
        let mut removed = 0;
        for digest in due {
            // Somebody who brings the same package in right now keeps it.
            let Ok(_guard) = self.lock(digest).try_write_owned() else { continue };
            if self.used().contains(&digest) {
                self.state().unused.remove(&digest);
                continue;
            }
            match self.remove(digest).await {
                Ok(()) => {
                    removed += 1;
                    self.state().unused.remove(&digest);
                }
                Err(error) => {
                    tracing::warn!(package = %digest, error = %dunlin_model::chain(&error), "an unused package could not be removed; tried again in the next round")
                }
            }
        }
        Ok(removed)
    }

    /// Removes a package that nobody uses and nobody used lately. The caller holds it alone.
    async fn remove_if_new(&self, digest: Digest) {
        if self.used().contains(&digest) || self.state().unused.contains_key(&digest) {
            return;
        }
        if let Err(error) = self.remove(digest).await {
            tracing::warn!(package = %digest, error = %dunlin_model::chain(&error), "a refused package could not be removed; it is tried again");
            self.release(digest);
        }
    }

    /// The tree first: as long as the blob is there, the package is found again.
    async fn remove(&self, digest: Digest) -> Result<(), Error> {
        self.sandboxes.discard_tree(digest).await.map_err(|error| Error::platform("discard the unpacked code", error))?;
        self.blobs.remove(digest).await.map_err(|error| Error::platform("remove the code", error))
    }

    fn used(&self) -> HashSet<Digest> {
        let view = self.store.view();
        let heads = view.functions().map(|(_, stored)| &stored.value);
        let functions = heads.chain(view.all_versions().map(|version| &version.value.function));
        let of_functions = functions.flat_map(|function| {
            std::iter::once(function.code.digest).chain(function.config.layers.iter().flatten().map(|layer| layer.digest))
        });
        let of_functions = of_functions.chain(view.all_images().map(|image| image.value.package.digest));
        of_functions.chain(view.all_layer_versions().map(|version| version.value.code.digest)).collect()
    }

    fn lock(&self, digest: Digest) -> Arc<RwLock<()>> {
        let mut state = self.state();
        let slot = state.locks.entry(digest).or_default();
        if let Some(lock) = slot.upgrade() {
            return lock;
        }
        let lock = Arc::new(RwLock::new(()));
        *slot = Arc::downgrade(&lock);
        lock
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Both maps stay meaningful whatever a panic interrupted: entries are added and removed whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a package was not unpacked, as far as it is the same for whatever is in it. `field` is where it was brought.
fn not_unpacked(error: UnpackError, digest: Digest, field: &str, doing: &'static str) -> Error {
    match error {
        UnpackError::Rejected { code, message } => {
            tracing::debug!(package = %digest, code, message, "a package was refused");
            Error::invalid(field, format!("is refused: {message}"))
        }
        UnpackError::TimedOut => Error::invalid(field, "is refused: unpacking it takes too long"),
        UnpackError::Full => Error::Busy { what: "too many packages are being unpacked" },
        other => Error::platform(doing, other),
    }
}

/// Whether the handler names one of the programs that were found, or one of them is what it stands for.
fn check_program(handler: &str, programs: &[String]) -> Result<(), Error> {
    let there = |name: &str| programs.iter().any(|program| program == name);
    let named = handler.ends_with(".wasm");
    if (named && there(handler)) || (!named && (there("main.wasm") || there("index.wasm"))) {
        return Ok(());
    }
    let found = programs.join(", ");
    Err(Error::invalid(
        "handler",
        format!("must name a .wasm file of the package: {found}; without one, main.wasm or index.wasm is taken"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_is_one_of_the_programs_or_stands_for_the_default() {
        let programs = ["a.wasm".to_owned(), "index.wasm".to_owned()];
        for handler in ["a.wasm", "index.wasm", "index.handler", ""] {
            assert!(check_program(handler, &programs).is_ok(), "{handler}");
        }
        let error = check_program("main.wasm", &programs).expect_err("there is no such file").to_string();
        assert!(error.starts_with("handler must name") && error.contains("a.wasm, index.wasm"), "{error}");
        assert!(check_program("", &programs[..1]).is_err());
    }
}
