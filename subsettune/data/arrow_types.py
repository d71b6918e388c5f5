"""Arrow has several types for one thing; what is read is cast to the plain one, so that no reader knows the others."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

EXTENSION = b"ARROW:extension:name"  # how files and schemas name a type that is not registered here
PERIOD = b"pandas.period"
DATE = b"subsettune.date"  # how plain schemas mark a column of dates or times, which is read as seconds: its type
SHORT_YEARS = b"subsettune.short_years"  # how schemas mark a column of dates whose years have two digits in the file
AS_DATE = " as a date"  # after the type of texts that are some
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
DAY_S = 86_400


def plain(kind: pa.DataType) -> pa.DataType:
    """The plain type: views, dictionaries and decimals become texts, bytes and numbers; others stay.

    Large texts and bytes stay large: a column of more than 2 GB fits no other.
    """
    types = pa.types
    if types.is_dictionary(kind):
        return plain(kind.value_type)
    if isinstance(kind, pa.FixedShapeTensorType):
        return kind  # has a shape, which its storage lacks
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary_view(kind):
        return pa.large_binary()
    if types.is_fixed_size_binary(kind):
        return pa.binary()
    if types.is_decimal(kind):
        return pa.float64()
    if types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(plain(kind.value_type)), kind.list_size)
    if types.is_list(kind):
        return pa.list_(kind.value_field.with_type(plain(kind.value_type)))
    if types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(plain(kind.value_type)))
    if types.is_struct(kind):
        return pa.struct([field.with_type(plain(field.type)) for field in kind])
    return kind


def is_time(field: pa.Field) -> bool:
    """Whether a column of a plain schema holds times that are no numbers: periods of pandas, intervals of months."""
    return bool(pa.types.is_temporal(field.type)) or (field.metadata or {}).get(EXTENSION) == PERIOD


def is_date(field: pa.Field) -> bool:
    """Whether a column of a plain schema holds dates, times or spans of time as seconds."""
    return DATE in (field.metadata or {})


def kind_of(field: pa.Field) -> str:
    """The type of a column as its file has it, for people."""
    return str((field.metadata or {}).get(DATE, str(field.type).encode()).decode())


def is_clock(kind: pa.DataType) -> bool:
    """Whether a type is one of dates, times or spans that are so many seconds."""
    types = pa.types
    return bool(types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind) or types.is_duration(kind))


def seconds(column: pa.Array) -> pa.Array:
    """Dates and times as seconds since 1970 in UTC, times of day since midnight, and spans as seconds; float64."""
    kind = column.type
    if pa.types.is_date32(kind):
        return pc.multiply(column.cast(pa.int32()).cast(pa.float64()), float(DAY_S))
    per_second = 10**3 if pa.types.is_date64(kind) else PER_SECOND[kind.unit]
    whole = column.cast(pa.int32() if pa.types.is_time32(kind) else pa.int64())
    return pc.divide(whole.cast(pa.float64(), safe=False), float(per_second))


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of a file with plain types, metadata kept; of an extension type its name becomes a remark."""
    return pa.schema([_plain_field(field) for field in schema], metadata=schema.metadata)


def _plain_field(field: pa.Field) -> pa.Field:
    if is_clock(field.type):
        told = {**(field.metadata or {}), DATE: str(field.type).encode()}
        return field.with_type(pa.float64()).with_metadata(told)
    made = field.with_type(plain(field.type))
    if isinstance(field.type, pa.BaseExtensionType):
        return made.with_metadata({**(field.metadata or {}), EXTENSION: field.type.extension_name})
    return made


def plain_column(column: pa.Array) -> pa.Array:
    """A column cast to its plain type; the same object where it is plain already."""
    if is_clock(column.type):
        return seconds(column)
    kind = plain(column.type)
    if kind == column.type:
        return column
    if isinstance(column.type, pa.BaseExtensionType):
        return plain_column(column.storage)
    if pa.types.is_dictionary(column.type):  # Arrow cannot cast a dictionary of views itself
        return plain_column(column.dictionary).take(column.indices)
    return column.cast(kind)


def plain_chunks(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The same of a column in chunks."""
    kind = pa.float64() if is_clock(column.type) else plain(column.type)
    return column if kind == column.type else pa.chunked_array([plain_column(c) for c in column.chunks], type=kind)
