"""The target database: engines, schema, names, lookups, system tables, views."""
