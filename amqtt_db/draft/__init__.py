"""A first configuration, from messages that were heard: what they are like, and how to store them.

Topics that are alike become one filter with named levels; what their payloads hold becomes types and a model, each
with its reason.  No choice here can lose a message: whatever is not declared gets a column, and whatever does not have
its declared type gets another one.
"""

from amqtt_db.draft.families import Heard, find_families
from amqtt_db.draft.routes import RouteDraft, draft_routes
from amqtt_db.draft.text import TEMPLATE, write_yaml

__all__ = ["TEMPLATE", "Heard", "RouteDraft", "draft_routes", "find_families", "write_yaml"]
