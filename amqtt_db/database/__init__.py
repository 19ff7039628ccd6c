"""The target database: engines, schema, names, lookups, system tables and views."""
