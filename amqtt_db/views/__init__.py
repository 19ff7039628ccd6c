"""SQL views in wide form: the same columns of a route's records, whatever model they lie in.

A view belongs to the key of a place: a route's, or a topic's where a topic has tables of its own.  Its name and its
columns' names are given once and remembered in the catalogue, so a dashboard survives a change of model: the view then
unites what lies here and there.  Of which topics a route's view has the records is looked up whenever it is asked.
"""

from amqtt_db.views.select import EXTRA, SPILLED, Source, View, select
from amqtt_db.views.upkeep import MOST_SOURCES, Views, Wish

__all__ = ["EXTRA", "MOST_SOURCES", "SPILLED", "Source", "View", "Views", "Wish", "select"]
