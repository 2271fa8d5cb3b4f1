//! Answers as columns, for whatever reads Arrow: see `docs/design/016-columns.md`.

mod batches;
mod columns;
mod interface;
mod strings;
mod table;

pub(crate) use table::ArrowTable;
