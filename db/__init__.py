"""Results in SQL: tables, migrations, the ledger of what is done, and queries."""
