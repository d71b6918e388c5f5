"""Arrow has several types for one thing; what is read is cast to the plain one, so that no reader knows the others."""

from __future__ import annotations

import pyarrow as pa

EXTENSION = b"ARROW:extension:name"  # how files and schemas name a type that is not registered here
PERIOD = b"pandas.period"


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
    """Whether a column of a plain schema holds dates, times or spans of time; pandas writes periods as numbers."""
    return bool(pa.types.is_temporal(field.type)) or (field.metadata or {}).get(EXTENSION) == PERIOD


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of a file with plain types, metadata kept; of an extension type its name becomes a remark."""
    return pa.schema([_plain_field(field) for field in schema], metadata=schema.metadata)


def _plain_field(field: pa.Field) -> pa.Field:
    made = field.with_type(plain(field.type))
    if isinstance(field.type, pa.BaseExtensionType):
        return made.with_metadata({**(field.metadata or {}), EXTENSION: field.type.extension_name})
    return made


def plain_column(column: pa.Array) -> pa.Array:
    """A column cast to its plain type; the same object where it is plain already."""
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
    kind = plain(column.type)
    return column if kind == column.type else pa.chunked_array([plain_column(c) for c in column.chunks], type=kind)
