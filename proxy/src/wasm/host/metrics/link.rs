//! How the functions of the capability are linked.

use wasmtime::component::Linker;
use wasmtime::{Caller, Linker as CoreLinker, StoreContextMut};

use super::{BadMetric, Definition, MetricKind, Metrics};
use crate::wasm::bindings::MetricKindName;
use crate::wasm::host::access::Access;
use crate::wasm::host::lift;

type Defined = (MetricKindName, String, String, Vec<String>, Vec<f64>);
type Counted = (u32, Vec<String>, f64);

pub(in crate::wasm::host) fn link_component<T: 'static>(
    linker: &mut Linker<T>,
    import: &str,
    access: Access<T, Metrics>,
) -> wasmtime::Result<()> {
    let mut metrics = linker.instance(import)?;
    metrics.func_wrap(
        "define",
        move |mut store: StoreContextMut<'_, T>, (kind, name, help, labels, buckets): Defined| {
            let definition = Definition {
                kind: match kind {
                    MetricKindName::Counter => MetricKind::Counter,
                    MetricKindName::Gauge => MetricKind::Gauge,
                    MetricKindName::Histogram => MetricKind::Histogram,
                },
                name,
                help,
                labels,
                buckets,
            };
            let number = access.enter(store.data_mut())?.define(definition);
            Ok((number.map_err(trap)?,))
        },
    )?;
    metrics.func_wrap(
        "add",
        move |mut store: StoreContextMut<'_, T>, (metric, labels, amount): Counted| {
            let metrics = access.enter(store.data_mut())?;
            metrics.add(metric, &labels, amount).map_err(trap)
        },
    )?;
    metrics.func_wrap(
        "set",
        move |mut store: StoreContextMut<'_, T>, (metric, labels, value): Counted| {
            let metrics = access.enter(store.data_mut())?;
            metrics.set(metric, &labels, value).map_err(trap)
        },
    )?;
    metrics.func_wrap(
        "observe",
        move |mut store: StoreContextMut<'_, T>, (metric, labels, value): Counted| {
            let metrics = access.enter(store.data_mut())?;
            metrics.observe(metric, &labels, value).map_err(trap)
        },
    )
}

pub(in crate::wasm::host) fn link_core<T: 'static>(
    linker: &mut CoreLinker<T>,
    import: &str,
    access: Access<T, Metrics>,
) -> wasmtime::Result<()> {
    linker.func_wrap(
        import,
        "define",
        move |caller: Caller<'_, T>,
              kind: i32,
              name_at: i32,
              name_length: i32,
              help_at: i32,
              help_length: i32,
              labels_at: i32,
              labels_count: i32,
              buckets_at: i32,
              buckets_count: i32| {
            let lists = Lists {
                name: (name_at, name_length),
                help: (help_at, help_length),
                labels: (labels_at, labels_count),
                buckets: (buckets_at, buckets_count),
            };
            define(caller, access, kind, &lists)
        },
    )?;
    linker.func_wrap(
        import,
        "add",
        move |caller: Caller<'_, T>, metric: i32, at: i32, count: i32, amount: f64| {
            counted(
                caller,
                access,
                metric,
                (at, count),
                |metrics, number, labels| metrics.add(number, labels, amount),
            )
        },
    )?;
    linker.func_wrap(
        import,
        "set",
        move |caller: Caller<'_, T>, metric: i32, at: i32, count: i32, value: f64| {
            counted(
                caller,
                access,
                metric,
                (at, count),
                |metrics, number, labels| metrics.set(number, labels, value),
            )
        },
    )?;
    linker.func_wrap(
        import,
        "observe",
        move |caller: Caller<'_, T>, metric: i32, at: i32, count: i32, value: f64| {
            counted(
                caller,
                access,
                metric,
                (at, count),
                |metrics, number, labels| metrics.observe(number, labels, value),
            )
        },
    )?;
    Ok(())
}

/// What `define` is passed by addresses and lengths.
struct Lists {
    name: (i32, i32),
    help: (i32, i32),
    labels: (i32, i32),
    buckets: (i32, i32),
}

fn define<T>(
    mut caller: Caller<'_, T>,
    access: Access<T, Metrics>,
    kind: i32,
    lists: &Lists,
) -> wasmtime::Result<i32> {
    access.enter(caller.data_mut())?;
    let memory = (access.memory)(caller.data());
    let definition = Definition {
        kind: match kind {
            0 => MetricKind::Counter,
            1 => MetricKind::Gauge,
            2 => MetricKind::Histogram,
            _ => return Err(wasmtime::Error::msg("no such kind of metric")),
        },
        name: lift::text(&caller, memory, lists.name.0, lists.name.1)?,
        help: lift::text(&caller, memory, lists.help.0, lists.help.1)?,
        labels: lift::texts(&caller, memory, lists.labels.0, lists.labels.1)?,
        buckets: lift::numbers(&caller, memory, lists.buckets.0, lists.buckets.1)?,
    };
    let number = (access.part)(caller.data_mut()).define(definition);
    number.map(|number| number as i32).map_err(trap)
}

fn counted<T>(
    mut caller: Caller<'_, T>,
    access: Access<T, Metrics>,
    metric: i32,
    (at, count): (i32, i32),
    count_it: impl FnOnce(&mut Metrics, u32, &[String]) -> Result<(), BadMetric>,
) -> wasmtime::Result<()> {
    access.enter(caller.data_mut())?;
    let labels = lift::texts(&caller, (access.memory)(caller.data()), at, count)?;
    let metrics = (access.part)(caller.data_mut());
    count_it(metrics, metric as u32, &labels).map_err(trap)
}

fn trap(bad: BadMetric) -> wasmtime::Error {
    wasmtime::Error::msg(bad.to_string())
}
