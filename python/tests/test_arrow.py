"""FileReader.to_arrow, as pyarrow, polars, pandas and DuckDB read it."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from heaptide import AllocatorType, FileReader

pyarrow = pytest.importorskip("pyarrow")

QUERIES = {
    "high_watermark": "get_high_watermark_allocation_records",
    "leaked": "get_leaked_allocation_records",
    "total": "get_total_allocation_records",
    "temporary": "get_temporary_allocation_records",
}
DEALLOCATIONS = (AllocatorType.FREE, AllocatorType.MUNMAP, AllocatorType.PYMALLOC_FREE)


def frames_of(record: Any) -> Any:
    if record.allocator in DEALLOCATIONS:
        return None
    names = ("qualified_name", "column", "end_line", "end_column")
    return [
        {
            "function": frame.function,
            "file": frame.file,
            "line": frame.line or None,
            **{name: getattr(frame, name) for name in names},
        }
        for frame in record.stack_trace()
    ]


@pytest.mark.parametrize("kind", QUERIES)
@pytest.mark.parametrize("merge_threads", [True, False])
def test_sums_are_those_of_the_records(capture: Path, kind: str, merge_threads: bool) -> None:
    reader = FileReader(capture)
    table = pyarrow.table(reader.to_arrow(kind, merge_threads=merge_threads))  # type: ignore[arg-type]
    table.validate(full=True)
    records = list(getattr(reader, QUERIES[kind])(merge_threads=merge_threads))
    assert table.num_rows == len(records) > 0
    for row, record in zip(table.to_pylist(), records):
        assert row == {
            "size": record.size,
            "count": record.n_allocations,
            "allocator": AllocatorType(record.allocator).name,
            "thread_id": None if merge_threads else record.tid,
            "thread_name": None if merge_threads else record.thread_name,
            "stack_id": record.stack_id,
            "stack": frames_of(record),
        }


def test_every_event(captures: dict[str, Path]) -> None:
    reader = FileReader(captures["all"])
    columns = pyarrow.table(reader.to_arrow("all"))
    columns.validate(full=True)
    count = 0
    for row, record in zip(columns.to_pylist(), reader.get_allocation_records()):
        count += 1
        assert (row["address"], row["size"], row["count"]) == (record.address, record.size, record.n_allocations)
        assert (row["thread_id"], row["thread_name"]) == (record.tid, record.thread_name)
        assert row["allocator"] == AllocatorType(record.allocator).name
        assert row["stack"] == frames_of(record)
    assert count == columns.num_rows > 100


@pytest.mark.parametrize("kind", ["temporal", "temporal_high_watermark"])
def test_over_time(captures: dict[str, Path], kind: str) -> None:
    reader = FileReader(captures["all"])
    if kind == "temporal":
        records = reader.get_temporal_allocation_records()
    else:
        records, _ = reader.get_temporal_high_water_mark_allocation_records()
    expected = [
        (it.allocated_before_snapshot, it.deallocated_before_snapshot, it.n_bytes, it.n_allocations, record.stack_id)
        for record in records
        for it in record.intervals
    ]
    table = pyarrow.table(reader.to_arrow(kind, stacks=False))  # type: ignore[arg-type]
    names = ("allocated_before_snapshot", "deallocated_before_snapshot", "size", "count", "stack_id")
    assert list(zip(*(table[name].to_pylist() for name in names))) == expected
    assert "stack" not in table.column_names


def test_what_cannot_be_answered(captures: dict[str, Path]) -> None:
    reader = FileReader(captures["aggregated"])
    with pytest.raises(ValueError, match='"sizes"'):
        reader.to_arrow("sizes")  # type: ignore[arg-type]
    for kind in ("all", "temporal"):
        with pytest.raises(NotImplementedError):
            pyarrow.table(reader.to_arrow(kind))  # type: ignore[arg-type]
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.to_arrow()


def test_what_is_left_in_a_capsule_is_released(capture: Path) -> None:
    table = FileReader(capture).to_arrow()
    assert pyarrow.schema(table) == pyarrow.table(table).schema
    stream = table.__arrow_c_stream__()
    batches = pyarrow.RecordBatchReader.from_stream(FileReader(capture).to_arrow())
    first = batches.read_next_batch()
    names = first.column("stack").to_pylist()
    del batches, stream, table
    gc.collect()
    # A batch lives longer than its stream.
    assert first.column("stack").to_pylist() == names


def total_of(reader: FileReader) -> int:
    return sum(record.size for record in reader.get_allocation_records())


def test_polars(captures: dict[str, Path]) -> None:
    polars = pytest.importorskip("polars", reason="polars is not installed")
    reader = FileReader(captures["all"])
    frame = polars.DataFrame(reader.to_arrow("all"))
    assert frame["size"].sum() == total_of(reader)
    functions = frame.explode("stack")["stack"].struct.field("function").cast(polars.String)
    assert {"many", "fleeting", "grow_and_shrink"} <= set(functions)


def test_pandas(captures: dict[str, Path]) -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    reader = FileReader(captures["all"])
    frames = pyarrow.table(reader.to_arrow("all", stacks=False)).to_pandas()
    assert frames["size"].sum() == total_of(reader)
    assert set(frames["allocator"]) >= {"MALLOC", "FREE"}


def test_duckdb(captures: dict[str, Path]) -> None:
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    reader = FileReader(captures["all"])
    with duckdb.connect() as database:
        # It asks for the rows anew for each query.
        database.register("records", reader.to_arrow("all"))
        ((total,),) = database.sql("select sum(size)::bigint from records").fetchall()
        assert total == total_of(reader)
        by_function = database.sql(
            "select stack[1].function, sum(count)::bigint from records "
            "where allocator = 'MALLOC' and stack[1].function in ('many', 'fleeting') group by all"
        ).fetchall()
    innermost = [
        record.stack_trace()[0].function
        for record in reader.get_allocation_records()
        if record.allocator == AllocatorType.MALLOC and record.stack_trace()
    ]
    assert dict(by_function) == {name: innermost.count(name) for name in ("many", "fleeting")}
