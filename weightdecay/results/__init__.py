"""What came of a grid: tables, the choice, and the report."""
