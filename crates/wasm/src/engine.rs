//! The engine, the same wherever code is compiled and wherever it runs.

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Most calls an instance of ours serves at a time; the contract's `instanceConcurrency` ends at 200.
const CALLS_MAX: u32 = 200;

/// Wasm code may use so much stack; a guest that needs more traps.
const STACK_BYTES: usize = 1 << 20;

/// An engine.
///
/// Every slot an instance can need is reserved here once, as addresses and not as memory, so that making an instance
/// takes microseconds. Compiling with the same engine tells at once of code that fits into no slot.
///
/// # Errors
/// When the machine is none that code can be compiled for, or the addresses cannot be reserved.
pub(crate) fn make() -> wasmtime::Result<Engine> {
    let mut slots = PoolingAllocationConfig::new();
    // A component made from an interpreted language is some dozens of core modules; most of them share one memory.
    slots
        .total_component_instances(CALLS_MAX)
        .total_core_instances(CALLS_MAX * 32)
        .total_memories(CALLS_MAX * 4)
        .total_tables(CALLS_MAX * 8)
        .total_stacks(CALLS_MAX)
        .max_memories_per_module(4)
        .max_tables_per_module(8)
        // An interpreter's table of functions.
        .table_elements(100_000)
        .max_core_instance_size(8 << 20)
        .max_component_instance_size(8 << 20);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(slots))
        .epoch_interruption(true)
        .wasm_component_model(true)
        .max_wasm_stack(STACK_BYTES)
        .async_stack_size(STACK_BYTES * 2);
    Engine::new(&config)
}
