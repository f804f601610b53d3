"""Labels in other tools' formats: pure functions from plain rows to text, one module a format."""
