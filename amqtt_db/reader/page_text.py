"""The statement for a page as text for the driver.

Thousands of topics may have tables that are alike but for their names.  The statement for these is compiled once, with
another name in place of theirs, because SQLAlchemy takes longer to compile it than the database to run it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import attrs
import sqlalchemy as sa

from amqtt_db.reader.columns import StoredTable
from amqtt_db.reader.selection import Order
from amqtt_db.reader.statement import Bounds, DriverText, page_statement

_MOST_FORMS: Final = 256  # whose statements are remembered
_ANY_NAME: Final = "\x01"  # needs quotes, and no column has it


def page_text(dialect: sa.Dialect, main: StoredTable, order: Order, bounds: Bounds, *, following: bool) -> DriverText:
    """Return the same statement as :func:`page_statement`, as text."""
    form = _compile_page(dialect, tuple(main.names.values()), order, bounds, following)
    quote = dialect.identifier_preparer.quote
    return attrs.evolve(form, text=form.text.replace(quote(_ANY_NAME), quote(main.target.name)))


@lru_cache(_MOST_FORMS)
def _compile_page(
    dialect: sa.Dialect, columns: tuple[str, ...], order: Order, bounds: Bounds, following: bool
) -> DriverText:
    """Return the statement for a table with these columns and another name."""
    target = sa.table(_ANY_NAME, *map(sa.column, columns))
    compiled = page_statement(target, order, bounds, following=following).compile(dialect=dialect)
    constants = {name: value for name, value in compiled.params.items() if value is not None}
    return DriverText(str(compiled), getattr(compiled, "positiontup", None), constants)
